// A workgroup takes tileQueries query rows of one head and walks over tiles of tileKeys keys. Invocation (x, y)
// keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x once at the end, in
// workgroup memory.

const threads = 64;
const rows = 2;
const tileQueries = 16;
const tileKeys = 16;
const headVectors = 3;
const headChunks = 1;
const valueVectors = 3;
const valueChunks = 1;
const chunkStride = 9;
var<workgroup> ownedChunk : array<vec4<f32>, 144>;
var<workgroup> walkedChunk : array<vec4<f32>, 144>;
// Rows of the tensors that stand in the chunks; -1 for none.
var<workgroup> ownedRows : array<i32, 16>;
var<workgroup> walkedRows : array<i32, 16>;
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
// Maximum, sum, and product of output and gradient, of a row in an x.
var<workgroup> partials : array<vec3<f32>, 128>;
// Where a maximum starts; finite, because WGSL need not support infinities.
const lowest = -1e38f;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, query[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, query[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, query[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, query[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, key[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, key[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, key[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, key[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readOutput(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, output[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, output[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, output[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, output[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, dy[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, dy[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, dy[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, dy[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}

// Original index given to the padding of a key tile: past every limit.
const nowhere = 0x7fffffff;

fn queryRows(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryShape.z));
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return (uniforms.keyShape.z + tileKeys - 1) / tileKeys;
}

fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  return vec2<i32>(t * tileKeys, min((t + 1) * tileKeys, uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return slot;
}

// Original index of the key in a slot of the tile that covers slots [tile.x, tile.y).
fn positionIn(head : i32, tile : vec2<i32>, slot : i32) -> i32 {
  if (tile.x + slot < tile.y) {
    return keyPosition(head, tile.x + slot);
  }
  return nowhere;
}

fn main(index : i32) {
  let x = i32(localIndex) % 8;
  let y = i32(localIndex) / 8;
  let heads = uniforms.queryShape.y;
  let allHeads = uniforms.queryShape.x * heads;
  let head = workgroupIndex() % allHeads;
  let firstKeyRow = keyRow(head, heads, 0);
  let lastPosition = uniforms.keyShape.z - 1;
  // Last rows first: under a causal mask they have most keys, and a long workgroup should not start last. Workgroups
  // beyond those asked for get a negative index and no rows.
  let queryTileIndex = uniforms.queryTiles - 1 - workgroupIndex() / allHeads;
  let span = queryRows(queryTileIndex);
  let firstRow = span.x;
  let endRow = select(span.y, firstRow, queryTileIndex < 0);
  if (localIndex == 0u) {
    roundCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  let keyTiles = workgroupUniformLoad(&roundCount);
  let firstQueryRow = head * uniforms.queryShape.z;
  if (i32(localIndex) < tileQueries) {
    let row = firstRow + i32(localIndex);
    ownedRows[localIndex] = select(-1, firstQueryRow + row, row < endRow);
  }

  var rowMax = vec2<f32>(lowest);
  var rowSum = vec2<f32>(0.0);
  for (var t = 0; t < keyTiles; t++) {
    let slots = keySlots(head, queryTileIndex, t, keyTiles);
    if (i32(localIndex) < tileKeys) {
      let position = positionIn(head, slots, i32(localIndex));
      walkedRows[localIndex] = select(firstKeyRow + position, -1, position == nowhere);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();
    // The initial value is needed: without one the scores of the last round stay.
    var scores = array<array<f32, rows>, rows>();
    for (var chunk = 0; chunk < headChunks; chunk++) {
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (ownedRows[slot] >= 0 && chunk * 8 + x < headVectors) {
        loaded = readQuery(ownedRows[slot], chunk * 8 + x);
      }
      ownedChunk[slot * chunkStride + x] = loaded;
    }
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && chunk * 8 + x < headVectors) {
        loaded = readKey(walkedRows[slot], chunk * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: products read rows that others loaded.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let owned0 = ownedChunk[(y + 0) * chunkStride + i];
      let owned1 = ownedChunk[(y + 8) * chunkStride + i];
      let walked0 = walkedChunk[(x + 0) * chunkStride + i];
      scores[0][0] += dot(owned0, walked0);
      scores[1][0] += dot(owned1, walked0);
      let walked1 = walkedChunk[(x + 8) * chunkStride + i];
      scores[0][1] += dot(owned0, walked1);
      scores[1][1] += dot(owned1, walked1);
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }
    {
      let lastVisible = nowhere - 1;
      for (var c = 0; c < rows; c++) {
        let keyRow = walkedRows[x + c * 8];
        if (keyRow >= 0 && keyRow - firstKeyRow <= lastVisible) {
          let score = uniforms.logitScale * scores[0][c];
          let newMax = max(rowMax[0], score);
          rowSum[0] = rowSum[0] * exp2(rowMax[0] - newMax) + exp2(score - newMax);
          rowMax[0] = newMax;
        }
      }
    }
    {
      let lastVisible = nowhere - 1;
      for (var c = 0; c < rows; c++) {
        let keyRow = walkedRows[x + c * 8];
        if (keyRow >= 0 && keyRow - firstKeyRow <= lastVisible) {
          let score = uniforms.logitScale * scores[1][c];
          let newMax = max(rowMax[1], score);
          rowSum[1] = rowSum[1] * exp2(rowMax[1] - newMax) + exp2(score - newMax);
          rowMax[1] = newMax;
        }
      }
    }
    // Barrier: the next round overwrites the rows.
    workgroupBarrier();
  }

  {
    var product = 0.0;
    let row = firstRow + y + 0;
    for (var vector = x; vector < valueVectors && row < endRow; vector += 8) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + 0) * 8 + x] = vec3<f32>(rowMax[0], rowSum[0], product);
  }
    {
    var product = 0.0;
    let row = firstRow + y + 8;
    for (var vector = x; vector < valueVectors && row < endRow; vector += 8) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + 8) * 8 + x] = vec3<f32>(rowMax[1], rowSum[1], product);
  }
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  let row = i32(localIndex);
  if (row < tileQueries && firstRow + row < endRow) {
    var total = lowest;
    for (var i = 0; i < 8; i++) {
      total = max(total, partials[row * 8 + i].x);
    }
    var sum = 0.0;
    var product = 0.0;
    for (var i = 0; i < 8; i++) {
      let part = partials[row * 8 + i];
      sum += part.y * exp2(part.x - total);
      product += part.z;
    }
    let at = 4 * (firstQueryRow + firstRow + row);
    result[at] = select(total + log2(sum), 0.0, sum == 0.0);
    result[at + 1] = product;
    let end = uniforms.keyShape.z;
    var last = end - 1;
    
    result[at + 2] = select(f32(last), -1.0, sum == 0.0);
    result[at + 3] = f32(end);
  }
}
