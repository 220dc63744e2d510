// A workgroup computes the gradients of tileKeys keys and of their values, of one owner. It walks over tiles of
// tileQueries query rows of the blocks in its list: scores again, their weights times dy; gradients of the weights, the
// gradients of the scores times the queries.
//
// Invocation (x, y) computes the scores of keys y + r * threadsY with query rows x + c * threadsX, and keeps, in registers,
// both sums of its keys for the vectors x + o * threadsX of the head.
//
// Workgroup memory: the keys and values, for the whole run or by chunks (ownedTile); walkedTile, the query rows, their dy, then
// the query rows again; walkedStatistics; weights, of a key in the query rows of an x: first those of attention, then the
// gradients of the scores. Global memory is read ahead into registers: what the next step needs while this one computes, and
// where the rows of the next round but one stand.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}

const threads = 64;
const threadsX = 8;
const threadsY = 8;
const rows = 2;
const columns = 2;
const tileQueries = 16;
const tileKeys = 16;
const tileStride = 9;
const weightStride = 9;
var<workgroup> ownedTile : array<vec4<f32>, 144>;
var<workgroup> walkedTile : array<vec4<f32>, 144>;
var<workgroup> weights : array<vec2<f32>, 144>;
var<workgroup> anyNotFinite : atomic<u32>;

fn notFinite(x : vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}
fn noteNotFinite(x : vec4<f32>) {
  if (any(notFinite(x))) {
    atomicStore(&anyNotFinite, 1u);
  }
}
// Rows of the tensors; -1 for none. Of the walked ones there are those of this round and those of the next.
var<workgroup> ownedRows : array<i32, 16>;
var<workgroup> walkedRows : array<i32, 32>;
var<workgroup> walkedStatistics : array<vec4<f32>, 32>;
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
const noStatistics = vec4<f32>(0.0, 0.0, -1.0, 0.0);
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
fn writeKeyGradient(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
fn writeValueGradient(row : i32, vector : i32, x : vec4<f32>) { result[uniforms.owners * uniforms.keyLength * 64 / 4 + row * 16 + vector] = x; }



fn tilesIn(size : i32, tile : i32) -> i32 {
  return (size + tile - 1) / tile;
}

// Rows [first, end) of the t-th tile of a block.
fn tileOfBlock(block : i32, t : i32, blockSize : i32, tileSize : i32, length : i32) -> vec2<i32> {
  let first = block * blockSize + t * tileSize;
  let end = min((block + 1) * blockSize, length);
  return vec2<i32>(first, min(first + tileSize, end));
}

fn ownedSpan(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.keyBlockSize, tileKeys);
  return tileOfBlock(tile / tilesPerBlock, tile % tilesPerBlock, uniforms.keyBlockSize, tileKeys, uniforms.keyLength);
}

// Where the list of an owned tile's block starts: its length, then its blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.keyBlockSize, tileKeys);
  return uniforms.batch * uniforms.heads * uniforms.keyLength + (head * uniforms.keyBlocks + block) * (uniforms.queryBlocks + 1);
}

fn countListed(head : i32, tile : i32) -> i32 {
  return joinedPlan[listStart(head, tile)] * tilesIn(uniforms.blockSize, tileQueries);
}

// The t-th tile that the owner of a tile walks over.
fn listedTile(head : i32, tile : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileQueries);
  let block = joinedPlan[listStart(head, tile) + 1 + t / tilesPerBlock];
  return tileOfBlock(block, t % tilesPerBlock, uniforms.blockSize, tileQueries, uniforms.queryLength);
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return joinedPlan[head * uniforms.keyLength + slot];
}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  return vec3<i32>(head, listedTile(head, tile, t));
}

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 2);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 2);
  let length = uniforms.queryLength;
  let owners = uniforms.owners;
  let owner = workgroupIndex() % owners;
  // First keys first: under a causal mask they have most queries, and a long workgroup should not start last. Workgroups
  // beyond those asked for find no keys.
  let keyTile = workgroupIndex() / owners;
  let slots = ownedSpan(keyTile);
  // Query head that shares the keys, the first of them.
  let firstHead = owner * (uniforms.batch * uniforms.heads / owners);
  let firstKeyRow = keyRow(firstHead, 0);
  if (local == 0) {
    roundCount = select(0, countListed(owner, keyTile), slots.x < slots.y);
  }
  if (local < tileKeys) {
    var row = -1;
    if (slots.x + local < slots.y) {
      row = firstKeyRow + keyPosition(owner, slots.x + local);
    }
    ownedRows[local] = row;
  }
  let queryTiles = workgroupUniformLoad(&roundCount);

  var valueGradient = array<array<vec4<f32>, 2>, rows>();
  var keyGradient = array<array<vec4<f32>, 2>, rows>();
  // What this invocation carries from global to workgroup memory.
  var fetched : array<vec4<f32>, 4>;
  var aheadRow = -1;
  var aheadStatistics = vec4<f32>(0.0);
  if (local < 16) {
    aheadRow = -1;
    aheadStatistics = noStatistics;
    if (0 < queryTiles) {
      let queries = queryRows(owner, firstHead, keyTile, slots.x, 0);
      if (queries.y + local < queries.z) {
        aheadRow = queries.x * length + queries.y + local;
        aheadStatistics = statistics[aheadRow];
      }
    }
    walkedRows[local] = aheadRow; walkedStatistics[local] = aheadStatistics;
    aheadRow = -1;
    aheadStatistics = noStatistics;
    if (1 < queryTiles) {
      let queries = queryRows(owner, firstHead, keyTile, slots.x, 1);
      if (queries.y + local < queries.z) {
        aheadRow = queries.x * length + queries.y + local;
        aheadStatistics = statistics[aheadRow];
      }
    }
  }
  // Barrier: rows are read where others wrote that they stand.
  workgroupBarrier();
  
  fetched[0] = readQuery(max(walkedRows[0 + (local / 8)], 0), local % 8);
    fetched[1] = readQuery(max(walkedRows[0 + ((local + 64) / 8)], 0), (local + 64) % 8);
    fetched[2] = readKey(max(ownedRows[(local / 8)], 0), local % 8);
    fetched[3] = readKey(max(ownedRows[((local + 64) / 8)], 0), (local + 64) % 8);

  for (var t = 0; t < queryTiles; t++) {
    let now = (t & 1) * 16;
    let next = 16 - now;
    // The initial values are needed: without them the last round's stay.
    var scores = array<array<f32, columns>, rows>();
    var products = array<array<f32, columns>, rows>();
    // scores += key · queryᵀ
    if (local < 16) { walkedRows[next + local] = aheadRow; walkedStatistics[next + local] = aheadStatistics; }
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[2], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[3], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    if (local < 16) { aheadRow = -1;
    aheadStatistics = noStatistics;
    if (t + 2 < queryTiles) {
      let queries = queryRows(owner, firstHead, keyTile, slots.x, t + 2);
      if (queries.y + local < queries.z) {
        aheadRow = queries.x * length + queries.y + local;
        aheadStatistics = statistics[aheadRow];
      }
    } }
    fetched[0] = readQuery(max(walkedRows[now + (local / 8)], 0), 8 + local % 8);
    fetched[1] = readQuery(max(walkedRows[now + ((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    fetched[2] = readKey(max(ownedRows[(local / 8)], 0), 8 + local % 8);
    fetched[3] = readKey(max(ownedRows[((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // scores += key · queryᵀ, vectors from 8 on
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[2], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[3], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readDy(max(walkedRows[now + (local / 8)], 0), local % 8);
    fetched[1] = readDy(max(walkedRows[now + ((local + 64) / 8)], 0), (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    }
    {
      let known = walkedStatistics[now + x + 0 * threadsX];
      let last = i32(known.z);
      let queryRow = max(walkedRows[now + x + 0 * threadsX], 0);
      
      {
        let row = ownedRows[y + 0 * threadsY];
        let score = uniforms.logitScale * scores[0][0];
        scores[0][0] = select(exp2(score - known.x), 0.0, row < 0 || row - firstKeyRow > last);
      }
      {
        let row = ownedRows[y + 1 * threadsY];
        let score = uniforms.logitScale * scores[1][0];
        scores[1][0] = select(exp2(score - known.x), 0.0, row < 0 || row - firstKeyRow > last);
      }
    }
    {
      let known = walkedStatistics[now + x + 1 * threadsX];
      let last = i32(known.z);
      let queryRow = max(walkedRows[now + x + 1 * threadsX], 0);
      
      {
        let row = ownedRows[y + 0 * threadsY];
        let score = uniforms.logitScale * scores[0][1];
        scores[0][1] = select(exp2(score - known.x), 0.0, row < 0 || row - firstKeyRow > last);
      }
      {
        let row = ownedRows[y + 1 * threadsY];
        let score = uniforms.logitScale * scores[1][1];
        scores[1][1] = select(exp2(score - known.x), 0.0, row < 0 || row - firstKeyRow > last);
      }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // valueGradient += scores · dy
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    weights[(y + 0 * threadsY) * weightStride + x] = vec2<f32>(scores[0][0], scores[0][1]);
    weights[(y + 1 * threadsY) * weightStride + x] = vec2<f32>(scores[1][0], scores[1][1]);
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readDy(max(walkedRows[now + (local / 8)], 0), 8 + local % 8);
    fetched[1] = readDy(max(walkedRows[now + ((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    if (atomicLoad(&anyNotFinite) == 0u) {
      for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[0]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[0]), b, valueGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[1]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[1]), b, valueGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[0]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[0]), b, valueGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[1]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[1]), b, valueGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[0]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[0]), b, valueGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[1]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[1]), b, valueGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[0]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[0]), b, valueGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = fma(vec4<f32>(w0[1]), b, valueGradient[0][0]);
    valueGradient[1][0] = fma(vec4<f32>(w1[1]), b, valueGradient[1][0]);
      }
      }
    }
    } else {
      for (var s = 0; s < 8; s++) {
      let i = s * 1;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = select(fma(vec4<f32>(w0[0]), b, valueGradient[0][0]), valueGradient[0][0], w0[0] == 0.0);
    valueGradient[1][0] = select(fma(vec4<f32>(w1[0]), b, valueGradient[1][0]), valueGradient[1][0], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][0] = select(fma(vec4<f32>(w0[1]), b, valueGradient[0][0]), valueGradient[0][0], w0[1] == 0.0);
    valueGradient[1][0] = select(fma(vec4<f32>(w1[1]), b, valueGradient[1][0]), valueGradient[1][0], w1[1] == 0.0);
      }
      }
    }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // valueGradient += scores · dy, vectors from 8 on
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readValue(max(ownedRows[(local / 8)], 0), 8 + local % 8);
    fetched[1] = readValue(max(ownedRows[((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    if (atomicLoad(&anyNotFinite) == 0u) {
      for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[0]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[0]), b, valueGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[1]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[1]), b, valueGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[0]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[0]), b, valueGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[1]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[1]), b, valueGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[0]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[0]), b, valueGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[1]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[1]), b, valueGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[0]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[0]), b, valueGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = fma(vec4<f32>(w0[1]), b, valueGradient[0][1]);
    valueGradient[1][1] = fma(vec4<f32>(w1[1]), b, valueGradient[1][1]);
      }
      }
    }
    } else {
      for (var s = 0; s < 8; s++) {
      let i = s * 1;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = select(fma(vec4<f32>(w0[0]), b, valueGradient[0][1]), valueGradient[0][1], w0[0] == 0.0);
    valueGradient[1][1] = select(fma(vec4<f32>(w1[0]), b, valueGradient[1][1]), valueGradient[1][1], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        valueGradient[0][1] = select(fma(vec4<f32>(w0[1]), b, valueGradient[0][1]), valueGradient[0][1], w0[1] == 0.0);
    valueGradient[1][1] = select(fma(vec4<f32>(w1[1]), b, valueGradient[1][1]), valueGradient[1][1], w1[1] == 0.0);
      }
      }
    }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // products += value · dyᵀ, vectors from 8 on
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readDy(max(walkedRows[now + (local / 8)], 0), local % 8);
    fetched[1] = readDy(max(walkedRows[now + ((local + 64) / 8)], 0), (local + 64) % 8);
    fetched[2] = readValue(max(ownedRows[(local / 8)], 0), local % 8);
    fetched[3] = readValue(max(ownedRows[((local + 64) / 8)], 0), (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // products += value · dyᵀ
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[2], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[3], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readQuery(max(walkedRows[now + (local / 8)], 0), local % 8);
    fetched[1] = readQuery(max(walkedRows[now + ((local + 64) / 8)], 0), (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        products[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][0]))));
    products[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        products[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][1]))));
    products[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][1]))));
      }
      }
    }
    {
      let delta = walkedStatistics[now + x + 0 * threadsX].y;
      products[0][0] = select(scores[0][0] * (products[0][0] - delta), 0.0, scores[0][0] == 0.0);
      products[1][0] = select(scores[1][0] * (products[1][0] - delta), 0.0, scores[1][0] == 0.0);
    }
    {
      let delta = walkedStatistics[now + x + 1 * threadsX].y;
      products[0][1] = select(scores[0][1] * (products[0][1] - delta), 0.0, scores[0][1] == 0.0);
      products[1][1] = select(scores[1][1] * (products[1][1] - delta), 0.0, scores[1][1] == 0.0);
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // keyGradient += products · query
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    weights[(y + 0 * threadsY) * weightStride + x] = vec2<f32>(products[0][0], products[0][1]);
    weights[(y + 1 * threadsY) * weightStride + x] = vec2<f32>(products[1][0], products[1][1]);
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readQuery(max(walkedRows[now + (local / 8)], 0), 8 + local % 8);
    fetched[1] = readQuery(max(walkedRows[now + ((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    if (atomicLoad(&anyNotFinite) == 0u) {
      for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[0]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[0]), b, keyGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[1]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[1]), b, keyGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[0]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[0]), b, keyGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[1]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[1]), b, keyGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[0]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[0]), b, keyGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[1]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[1]), b, keyGradient[1][0]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[0]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[0]), b, keyGradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = fma(vec4<f32>(w0[1]), b, keyGradient[0][0]);
    keyGradient[1][0] = fma(vec4<f32>(w1[1]), b, keyGradient[1][0]);
      }
      }
    }
    } else {
      for (var s = 0; s < 8; s++) {
      let i = s * 1;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = select(fma(vec4<f32>(w0[0]), b, keyGradient[0][0]), keyGradient[0][0], w0[0] == 0.0);
    keyGradient[1][0] = select(fma(vec4<f32>(w1[0]), b, keyGradient[1][0]), keyGradient[1][0], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][0] = select(fma(vec4<f32>(w0[1]), b, keyGradient[0][0]), keyGradient[0][0], w0[1] == 0.0);
    keyGradient[1][0] = select(fma(vec4<f32>(w1[1]), b, keyGradient[1][0]), keyGradient[1][0], w1[1] == 0.0);
      }
      }
    }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // keyGradient += products · query, vectors from 8 on
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0); noteNotFinite(fetched[1]);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readQuery(max(walkedRows[next + (local / 8)], 0), local % 8);
    fetched[1] = readQuery(max(walkedRows[next + ((local + 64) / 8)], 0), (local + 64) % 8);
    fetched[2] = readKey(max(ownedRows[(local / 8)], 0), local % 8);
    fetched[3] = readKey(max(ownedRows[((local + 64) / 8)], 0), (local + 64) % 8);
    if (atomicLoad(&anyNotFinite) == 0u) {
      for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[0]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[0]), b, keyGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[1]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[1]), b, keyGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[0]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[0]), b, keyGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[1]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[1]), b, keyGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[0]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[0]), b, keyGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[1]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[1]), b, keyGradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[0]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[0]), b, keyGradient[1][1]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = fma(vec4<f32>(w0[1]), b, keyGradient[0][1]);
    keyGradient[1][1] = fma(vec4<f32>(w1[1]), b, keyGradient[1][1]);
      }
      }
    }
    } else {
      for (var s = 0; s < 8; s++) {
      let i = s * 1;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = select(fma(vec4<f32>(w0[0]), b, keyGradient[0][1]), keyGradient[0][1], w0[0] == 0.0);
    keyGradient[1][1] = select(fma(vec4<f32>(w1[0]), b, keyGradient[1][1]), keyGradient[1][1], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        keyGradient[0][1] = select(fma(vec4<f32>(w0[1]), b, keyGradient[0][1]), keyGradient[0][1], w0[1] == 0.0);
    keyGradient[1][1] = select(fma(vec4<f32>(w1[1]), b, keyGradient[1][1]), keyGradient[1][1], w1[1] == 0.0);
      }
      }
    }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();
  }

  let firstGradientRow = owner * uniforms.keyLength - firstKeyRow;
  {
    if (ownedRows[y + 0 * threadsY] >= 0) { writeKeyGradient(firstGradientRow + ownedRows[y + 0 * threadsY], 0 + x + 0 * threadsX, uniforms.scale * keyGradient[0][0]); }
    if (ownedRows[y + 1 * threadsY] >= 0) { writeKeyGradient(firstGradientRow + ownedRows[y + 1 * threadsY], 0 + x + 0 * threadsX, uniforms.scale * keyGradient[1][0]); }
  }
    {
    if (ownedRows[y + 0 * threadsY] >= 0) { writeKeyGradient(firstGradientRow + ownedRows[y + 0 * threadsY], 8 + x + 0 * threadsX, uniforms.scale * keyGradient[0][1]); }
    if (ownedRows[y + 1 * threadsY] >= 0) { writeKeyGradient(firstGradientRow + ownedRows[y + 1 * threadsY], 8 + x + 0 * threadsX, uniforms.scale * keyGradient[1][1]); }
  }
  {
    if (ownedRows[y + 0 * threadsY] >= 0) { writeValueGradient(firstGradientRow + ownedRows[y + 0 * threadsY], 0 + x + 0 * threadsX, valueGradient[0][0]); }
    if (ownedRows[y + 1 * threadsY] >= 0) { writeValueGradient(firstGradientRow + ownedRows[y + 1 * threadsY], 0 + x + 0 * threadsX, valueGradient[1][0]); }
  }
    {
    if (ownedRows[y + 0 * threadsY] >= 0) { writeValueGradient(firstGradientRow + ownedRows[y + 0 * threadsY], 8 + x + 0 * threadsX, valueGradient[0][1]); }
    if (ownedRows[y + 1 * threadsY] >= 0) { writeValueGradient(firstGradientRow + ownedRows[y + 1 * threadsY], 8 + x + 0 * threadsX, valueGradient[1][1]); }
  }
}
