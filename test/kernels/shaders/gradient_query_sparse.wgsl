// A workgroup computes the gradients of tileQueries query rows of one head. It walks over tiles of tileKeys keys of the
// blocks in its list: gradients of the weights, scores again, then the gradients of the scores times the keys.
//
// Invocation (x, y) computes the scores of rows y + r * threadsY with columns x + c * threadsX, and keeps, in registers, the
// sums of its rows for the vectors x + o * threadsX of the head.
//
// Workgroup memory: the rows of query and dy, for the whole run or by chunks (ownedTile); walkedTile, the values, then the keys;
// weights, the gradients of the scores, of a row in the columns of an x. Global memory is read ahead into registers: keys while
// values are multiplied, the next values while keys are, and where the rows after that stand.

const threads = 128;
const threadsX = 8;
const threadsY = 16;
const rows = 2;
const columns = 4;
const tileQueries = 32;
const tileKeys = 32;
const tileStride = 17;
const weightStride = 9;
var<workgroup> ownedDy : array<vec4<f32>, 544>;
var<workgroup> ownedQuery : array<vec4<f32>, 544>;
var<workgroup> walkedTile : array<vec4<f32>, 544>;
var<workgroup> weights : array<vec4<f32>, 288>;
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
var<workgroup> ownedRows : array<i32, 32>;
var<workgroup> walkedRows : array<i32, 64>;
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
const noStatistics = vec4<f32>(0.0, 0.0, -1.0, 0.0);
fn writeGradient(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;
// Original index given to the padding of a key tile: past every limit.
const paddingPosition = 0x7fffffff;
// Barriers of the walk need a number that all invocations are known to share. It takes 16 bytes, so that what a driver puts behind it
// begins at a multiple of them, as matrix units need it.
var<workgroup> keyTileCount : vec4<i32>;

fn keyEnd(head : i32) -> i32 {
  return uniforms.keyLength;
}

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
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileQueries);
  return tileOfBlock(tile / tilesPerBlock, tile % tilesPerBlock, uniforms.blockSize, tileQueries, uniforms.queryLength);
}

// Where the list of an owned tile's block starts: its length, then its blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.blockSize, tileQueries);
  return uniforms.batch * uniforms.heads * uniforms.keyLength + (head * uniforms.queryBlocks + block) * (uniforms.keyBlocks + 1);
}

fn countListed(head : i32, tile : i32) -> i32 {
  return joinedPlan[listStart(head, tile)] * tilesIn(uniforms.keyBlockSize, tileKeys);
}

// The t-th tile that the owner of a tile walks over.
fn listedTile(head : i32, tile : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.keyBlockSize, tileKeys);
  let block = joinedPlan[listStart(head, tile) + 1 + t / tilesPerBlock];
  return tileOfBlock(block, t % tilesPerBlock, uniforms.keyBlockSize, tileKeys, uniforms.keyLength);
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return joinedPlan[head * uniforms.keyLength + slot];
}

// Slots [first, end) that key tile t covers; none past the last tile.
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  if (t >= count) {
    return vec2<i32>(0);
  }
  return listedTile(head, tile, t);
}

// Original index of the key in a slot of the tile that covers slots [tile.x, tile.y).
fn positionIn(head : i32, tile : vec2<i32>, slot : i32) -> i32 {
  if (tile.x + slot < tile.y) {
    return keyPosition(head, tile.x + slot);
  }
  return paddingPosition;
}

fn visitedKey(head : i32, firstKeyRow : i32, keySpan : vec2<i32>, slot : i32) -> i32 {
  let position = positionIn(head, keySpan, slot);
  return select(firstKeyRow + position, -1, position == paddingPosition);
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 2);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 2);
  let allHeads = uniforms.batch * uniforms.heads;
  let head = workgroupIndex() % allHeads;
  let firstKeyRow = keyRow(head, 0);
  let lastPosition = uniforms.keyLength - 1;
  // Last rows first: under a causal mask they have most keys, and a long workgroup should not start last.
  let queryTileIndex = uniforms.queryTiles - 1 - workgroupIndex() / allHeads;
  let exists = queryTileIndex >= 0;
  let span = ownedSpan(queryTileIndex);
  let firstRow = span.x;
  // Workgroups beyond those asked for get no rows.
  let endRow = select(firstRow, span.y, exists);
  let allTiles = select(0, countListed(head, queryTileIndex), firstRow < endRow);
  if (local == 0) {
    keyTileCount.x = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;
  let firstQueryRow = head * uniforms.queryLength;
  if (local < tileQueries) {
    let row = firstRow + local;
    ownedRows[local] = select(-1, firstQueryRow + row, row < endRow);
  }
  var statistics0 = noStatistics;
  if (firstRow + y + 0 * threadsY < endRow) {
    statistics0 = statistics[firstQueryRow + firstRow + y + 0 * threadsY];
  }
  var statistics1 = noStatistics;
  if (firstRow + y + 1 * threadsY < endRow) {
    statistics1 = statistics[firstQueryRow + firstRow + y + 1 * threadsY];
  }

  var gradient = array<array<vec4<f32>, 2>, rows>();
  // What this invocation carries from global to workgroup memory.
  var fetched : array<vec4<f32>, 4>;
  var aheadRow = -1;
  if (local < 32) {
    aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, 0, keyTiles), local);
    walkedRows[local] = aheadRow;
    aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, 1, keyTiles), local);
  }
  // Barrier: rows are read where others wrote that they stand.
  workgroupBarrier();
  {
    var fetched = array<vec4<f32>, 4>();
    if (ownedRows[(local / 16)] >= 0) { fetched[0] = readDy(ownedRows[(local / 16)], local % 16); }
    if (ownedRows[((local + 128) / 16)] >= 0) { fetched[1] = readDy(ownedRows[((local + 128) / 16)], (local + 128) % 16); }
    if (ownedRows[((local + 256) / 16)] >= 0) { fetched[2] = readDy(ownedRows[((local + 256) / 16)], (local + 256) % 16); }
    if (ownedRows[((local + 384) / 16)] >= 0) { fetched[3] = readDy(ownedRows[((local + 384) / 16)], (local + 384) % 16); }
    {
      ownedDy[(local / 16) * tileStride + local % 16] = fetched[0];
    }
    {
      ownedDy[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[1];
    }
    {
      ownedDy[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[2];
    }
    {
      ownedDy[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[3];
    }
    }
  {
    var fetched = array<vec4<f32>, 4>();
    if (ownedRows[(local / 16)] >= 0) { fetched[0] = readQuery(ownedRows[(local / 16)], local % 16); }
    if (ownedRows[((local + 128) / 16)] >= 0) { fetched[1] = readQuery(ownedRows[((local + 128) / 16)], (local + 128) % 16); }
    if (ownedRows[((local + 256) / 16)] >= 0) { fetched[2] = readQuery(ownedRows[((local + 256) / 16)], (local + 256) % 16); }
    if (ownedRows[((local + 384) / 16)] >= 0) { fetched[3] = readQuery(ownedRows[((local + 384) / 16)], (local + 384) % 16); }
    {
      ownedQuery[(local / 16) * tileStride + local % 16] = fetched[0];
    }
    {
      ownedQuery[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[1];
    }
    {
      ownedQuery[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[2];
    }
    {
      ownedQuery[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[3];
    }
    }
  fetched[0] = readValue(max(walkedRows[0 + (local / 16)], 0), local % 16);
    fetched[1] = readValue(max(walkedRows[0 + ((local + 128) / 16)], 0), (local + 128) % 16);
    fetched[2] = readValue(max(walkedRows[0 + ((local + 256) / 16)], 0), (local + 256) % 16);
    fetched[3] = readValue(max(walkedRows[0 + ((local + 384) / 16)], 0), (local + 384) % 16);

  for (var t = 0; t < keyTiles; t++) {
    let now = (t & 1) * 32;
    let next = 32 - now;
    // The initial values are needed: without them the last round's stay.
    var products = array<array<f32, columns>, rows>();
    var scores = array<array<f32, columns>, rows>();
    // products += dy · valueᵀ
    if (local < 32) { walkedRows[next + local] = aheadRow; }
    {
      walkedTile[(local / 16) * tileStride + local % 16] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 16)] >= 0);
    }
    {
      walkedTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 128) / 16)] >= 0);
    }
    {
      walkedTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = select(vec4<f32>(0.0), fetched[2], walkedRows[now + ((local + 256) / 16)] >= 0);
    }
    {
      walkedTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = select(vec4<f32>(0.0), fetched[3], walkedRows[now + ((local + 384) / 16)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    if (local < 32) { aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, t + 2, keyTiles), local); }
    fetched[0] = readKey(max(walkedRows[now + (local / 16)], 0), local % 16);
    fetched[1] = readKey(max(walkedRows[now + ((local + 128) / 16)], 0), (local + 128) % 16);
    fetched[2] = readKey(max(walkedRows[now + ((local + 256) / 16)], 0), (local + 256) % 16);
    fetched[3] = readKey(max(walkedRows[now + ((local + 384) / 16)], 0), (local + 384) % 16);
    for (var s = 0; s < 4; s++) {
      let i = s * 4;
      {
      let a0 = ownedDy[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedDy[(y + 1 * threadsY) * tileStride + i + 0];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 0];
        products[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][2]))));
    products[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 0];
        products[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][3]))));
    products[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][3]))));
      }
      }
    {
      let a0 = ownedDy[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedDy[(y + 1 * threadsY) * tileStride + i + 1];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 1];
        products[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][2]))));
    products[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 1];
        products[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][3]))));
    products[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][3]))));
      }
      }
    {
      let a0 = ownedDy[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedDy[(y + 1 * threadsY) * tileStride + i + 2];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 2];
        products[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][2]))));
    products[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 2];
        products[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][3]))));
    products[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][3]))));
      }
      }
    {
      let a0 = ownedDy[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedDy[(y + 1 * threadsY) * tileStride + i + 3];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 3];
        products[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][2]))));
    products[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 3];
        products[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, products[0][3]))));
    products[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, products[1][3]))));
      }
      }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // scores += query · keyᵀ
    {
      walkedTile[(local / 16) * tileStride + local % 16] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 16)] >= 0); noteNotFinite(fetched[0]);
    }
    {
      walkedTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 128) / 16)] >= 0); noteNotFinite(fetched[1]);
    }
    {
      walkedTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = select(vec4<f32>(0.0), fetched[2], walkedRows[now + ((local + 256) / 16)] >= 0); noteNotFinite(fetched[2]);
    }
    {
      walkedTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = select(vec4<f32>(0.0), fetched[3], walkedRows[now + ((local + 384) / 16)] >= 0); noteNotFinite(fetched[3]);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readValue(max(walkedRows[next + (local / 16)], 0), local % 16);
    fetched[1] = readValue(max(walkedRows[next + ((local + 128) / 16)], 0), (local + 128) % 16);
    fetched[2] = readValue(max(walkedRows[next + ((local + 256) / 16)], 0), (local + 256) % 16);
    fetched[3] = readValue(max(walkedRows[next + ((local + 384) / 16)], 0), (local + 384) % 16);
    for (var s = 0; s < 4; s++) {
      let i = s * 4;
      {
      let a0 = ownedQuery[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedQuery[(y + 1 * threadsY) * tileStride + i + 0];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 0];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 0];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
      }
      }
    {
      let a0 = ownedQuery[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedQuery[(y + 1 * threadsY) * tileStride + i + 1];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 1];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 1];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
      }
      }
    {
      let a0 = ownedQuery[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedQuery[(y + 1 * threadsY) * tileStride + i + 2];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 2];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 2];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
      }
      }
    {
      let a0 = ownedQuery[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedQuery[(y + 1 * threadsY) * tileStride + i + 3];
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
    {
        let b = walkedTile[(x + 2 * threadsX) * tileStride + i + 3];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = walkedTile[(x + 3 * threadsX) * tileStride + i + 3];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
      }
      }
    }
    let position0 = select(paddingPosition, walkedRows[now + x + 0 * threadsX] - firstKeyRow, walkedRows[now + x + 0 * threadsX] >= 0);
    let position1 = select(paddingPosition, walkedRows[now + x + 1 * threadsX] - firstKeyRow, walkedRows[now + x + 1 * threadsX] >= 0);
    let position2 = select(paddingPosition, walkedRows[now + x + 2 * threadsX] - firstKeyRow, walkedRows[now + x + 2 * threadsX] >= 0);
    let position3 = select(paddingPosition, walkedRows[now + x + 3 * threadsX] - firstKeyRow, walkedRows[now + x + 3 * threadsX] >= 0);
    {
      let last = i32(statistics0.z);
      
      {
        let score = uniforms.logitScale * scores[0][0];
        let gradient = exp2(score - statistics0.x) * (products[0][0] - statistics0.y);
        scores[0][0] = select(gradient, 0.0, position0 > last);
      }
      {
        let score = uniforms.logitScale * scores[0][1];
        let gradient = exp2(score - statistics0.x) * (products[0][1] - statistics0.y);
        scores[0][1] = select(gradient, 0.0, position1 > last);
      }
      {
        let score = uniforms.logitScale * scores[0][2];
        let gradient = exp2(score - statistics0.x) * (products[0][2] - statistics0.y);
        scores[0][2] = select(gradient, 0.0, position2 > last);
      }
      {
        let score = uniforms.logitScale * scores[0][3];
        let gradient = exp2(score - statistics0.x) * (products[0][3] - statistics0.y);
        scores[0][3] = select(gradient, 0.0, position3 > last);
      }
    }
    {
      let last = i32(statistics1.z);
      
      {
        let score = uniforms.logitScale * scores[1][0];
        let gradient = exp2(score - statistics1.x) * (products[1][0] - statistics1.y);
        scores[1][0] = select(gradient, 0.0, position0 > last);
      }
      {
        let score = uniforms.logitScale * scores[1][1];
        let gradient = exp2(score - statistics1.x) * (products[1][1] - statistics1.y);
        scores[1][1] = select(gradient, 0.0, position1 > last);
      }
      {
        let score = uniforms.logitScale * scores[1][2];
        let gradient = exp2(score - statistics1.x) * (products[1][2] - statistics1.y);
        scores[1][2] = select(gradient, 0.0, position2 > last);
      }
      {
        let score = uniforms.logitScale * scores[1][3];
        let gradient = exp2(score - statistics1.x) * (products[1][3] - statistics1.y);
        scores[1][3] = select(gradient, 0.0, position3 > last);
      }
    }

    // gradient += scores · key
    weights[(y + 0 * threadsY) * weightStride + x] = vec4<f32>(scores[0][0], scores[0][1], scores[0][2], scores[0][3]);
    weights[(y + 1 * threadsY) * weightStride + x] = vec4<f32>(scores[1][0], scores[1][1], scores[1][2], scores[1][3]);
    // Barrier: reads what others wrote.
    workgroupBarrier();
    if (atomicLoad(&anyNotFinite) == 0u) {
      for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[0]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[0]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[1]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[1]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[2]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[2]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[3]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[3]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[0]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[0]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[1]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[1]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 0 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[2]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[2]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 0 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[3]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[3]), b, gradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[0]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[0]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[1]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[1]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[2]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[2]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[3]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[3]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 1 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[0]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[0]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 1 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[1]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[1]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 1 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[2]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[2]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 1 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[3]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[3]), b, gradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[0]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[0]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[1]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[1]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[2]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[2]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[3]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[3]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 2 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[0]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[0]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 2 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[1]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[1]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 2 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[2]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[2]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 2 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[3]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[3]), b, gradient[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[0]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[0]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[1]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[1]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[2]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[2]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = fma(vec4<f32>(w0[3]), b, gradient[0][0]);
    gradient[1][0] = fma(vec4<f32>(w1[3]), b, gradient[1][0]);
      }
    {
        let b = walkedTile[(i + 3 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[0]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[0]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 3 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[1]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[1]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 3 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[2]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[2]), b, gradient[1][1]);
      }
    {
        let b = walkedTile[(i + 3 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = fma(vec4<f32>(w0[3]), b, gradient[0][1]);
    gradient[1][1] = fma(vec4<f32>(w1[3]), b, gradient[1][1]);
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
        gradient[0][0] = select(fma(vec4<f32>(w0[0]), b, gradient[0][0]), gradient[0][0], w0[0] == 0.0);
    gradient[1][0] = select(fma(vec4<f32>(w1[0]), b, gradient[1][0]), gradient[1][0], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = select(fma(vec4<f32>(w0[1]), b, gradient[0][0]), gradient[0][0], w0[1] == 0.0);
    gradient[1][0] = select(fma(vec4<f32>(w1[1]), b, gradient[1][0]), gradient[1][0], w1[1] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = select(fma(vec4<f32>(w0[2]), b, gradient[0][0]), gradient[0][0], w0[2] == 0.0);
    gradient[1][0] = select(fma(vec4<f32>(w1[2]), b, gradient[1][0]), gradient[1][0], w1[2] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        gradient[0][0] = select(fma(vec4<f32>(w0[3]), b, gradient[0][0]), gradient[0][0], w0[3] == 0.0);
    gradient[1][0] = select(fma(vec4<f32>(w1[3]), b, gradient[1][0]), gradient[1][0], w1[3] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = select(fma(vec4<f32>(w0[0]), b, gradient[0][1]), gradient[0][1], w0[0] == 0.0);
    gradient[1][1] = select(fma(vec4<f32>(w1[0]), b, gradient[1][1]), gradient[1][1], w1[0] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = select(fma(vec4<f32>(w0[1]), b, gradient[0][1]), gradient[0][1], w0[1] == 0.0);
    gradient[1][1] = select(fma(vec4<f32>(w1[1]), b, gradient[1][1]), gradient[1][1], w1[1] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = select(fma(vec4<f32>(w0[2]), b, gradient[0][1]), gradient[0][1], w0[2] == 0.0);
    gradient[1][1] = select(fma(vec4<f32>(w1[2]), b, gradient[1][1]), gradient[1][1], w1[2] == 0.0);
      }
    {
        let b = walkedTile[(i + 0 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        gradient[0][1] = select(fma(vec4<f32>(w0[3]), b, gradient[0][1]), gradient[0][1], w0[3] == 0.0);
    gradient[1][1] = select(fma(vec4<f32>(w1[3]), b, gradient[1][1]), gradient[1][1], w1[3] == 0.0);
      }
      }
    }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();
  }

  {
    if (firstRow + y + 0 * threadsY < endRow) { writeGradient(firstQueryRow + firstRow + y + 0 * threadsY, 0 + x + 0 * threadsX, uniforms.scale * gradient[0][0]); }
    if (firstRow + y + 1 * threadsY < endRow) { writeGradient(firstQueryRow + firstRow + y + 1 * threadsY, 0 + x + 0 * threadsX, uniforms.scale * gradient[1][0]); }
  }
    {
    if (firstRow + y + 0 * threadsY < endRow) { writeGradient(firstQueryRow + firstRow + y + 0 * threadsY, 0 + x + 1 * threadsX, uniforms.scale * gradient[0][1]); }
    if (firstRow + y + 1 * threadsY < endRow) { writeGradient(firstQueryRow + firstRow + y + 1 * threadsY, 0 + x + 1 * threadsX, uniforms.scale * gradient[1][1]); }
  }
}
