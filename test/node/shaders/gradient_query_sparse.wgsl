// A workgroup computes the gradients of tileQueries query rows of one head. It walks over tiles of tileKeys keys of the
// blocks in its list: scores again, gradients of the weights, then the gradients of the scores times the keys.
//
// Invocation (x, y) computes the scores of rows y + r * 8 with columns x + c * 8, and keeps, in registers, the sums of its
// rows for the vectors x + 8 * chunk of the head.
//
// Workgroup memory: ownedChunk and walkedChunk, 8 vectors of the query rows and of the keys at a time, for scores; of
// the rows' dy and of the values, for gradients of weights; at last of the keys again. weights, the gradients of the scores, of a row in the columns of an x.

const threads = 64;
const rows = 4;
const tileQueries = 32;
const tileKeys = 32;
const headVectors = 16;
const headChunks = 2;
const valueVectors = 16;
const valueChunks = 2;
const chunkStride = 9;
var<workgroup> ownedChunk : array<vec4<f32>, 288>;
var<workgroup> walkedChunk : array<vec4<f32>, 288>;
// Rows of the tensors that stand in the chunks; -1 for none.
var<workgroup> ownedRows : array<i32, 32>;
var<workgroup> walkedRows : array<i32, 32>;
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
var<workgroup> weights : array<vec4<f32>, 288>;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }
fn writeGradient(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }

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

fn tilesIn(size : i32, tile : i32) -> i32 {
  return (size + tile - 1) / tile;
}

// Query rows [first, end) of a query tile; a tile does not cross the end of its block.
fn queryRows(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileQueries);
  let block = tile / tilesPerBlock;
  let first = block * uniforms.blockSize + (tile % tilesPerBlock) * tileQueries;
  let end = min((block + 1) * uniforms.blockSize, uniforms.queryShape.z);
  return vec2<i32>(first, min(first + tileQueries, end));
}

// Where the block list of a query tile starts: its length, then its blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.blockSize, tileQueries);
  return (head * uniforms.blockListsShape.z + block) * uniforms.blockListsShape.w;
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return blockLists[listStart(head, tile)] * tilesIn(uniforms.blockSize, tileKeys);
}

// Slots [first, end) in the permuted order that key tile t covers; none past the last tile.
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  if (t >= count) {
    return vec2<i32>(0);
  }
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileKeys);
  let block = blockLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileKeys;
  let end = min((block + 1) * uniforms.blockSize, uniforms.keyShape.z);
  return vec2<i32>(first, min(first + tileKeys, end));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
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
  var logSum = vec4<f32>(0.0);
  var delta = vec4<f32>(0.0);
  // Last position that a row may see.
  var lastSeen = vec4<f32>(-1.0);
  {
    let row = firstRow + y + 0;
    if (row < endRow) {
      let at = 4 * (firstQueryRow + row);
      logSum[0] = statistics[at];
      delta[0] = statistics[at + 1];
      lastSeen[0] = statistics[at + 2];
    }
  }
    {
    let row = firstRow + y + 8;
    if (row < endRow) {
      let at = 4 * (firstQueryRow + row);
      logSum[1] = statistics[at];
      delta[1] = statistics[at + 1];
      lastSeen[1] = statistics[at + 2];
    }
  }
    {
    let row = firstRow + y + 16;
    if (row < endRow) {
      let at = 4 * (firstQueryRow + row);
      logSum[2] = statistics[at];
      delta[2] = statistics[at + 1];
      lastSeen[2] = statistics[at + 2];
    }
  }
    {
    let row = firstRow + y + 24;
    if (row < endRow) {
      let at = 4 * (firstQueryRow + row);
      logSum[3] = statistics[at];
      delta[3] = statistics[at + 1];
      lastSeen[3] = statistics[at + 2];
    }
  }

  var gradient = array<array<vec4<f32>, 2>, rows>();
  for (var t = 0; t < keyTiles; t++) {
    // 1. Which keys.
    let slots = keySlots(head, queryTileIndex, t, keyTiles);
    if (i32(localIndex) < tileKeys) {
      let position = positionIn(head, slots, i32(localIndex));
      walkedRows[localIndex] = select(firstKeyRow + position, -1, position == nowhere);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();

    // 2. Scores, and gradients of the weights. The initial values are needed: without them the last round's stay.
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
      let owned2 = ownedChunk[(y + 16) * chunkStride + i];
      let owned3 = ownedChunk[(y + 24) * chunkStride + i];
      let walked0 = walkedChunk[(x + 0) * chunkStride + i];
      scores[0][0] += dot(owned0, walked0);
      scores[1][0] += dot(owned1, walked0);
      scores[2][0] += dot(owned2, walked0);
      scores[3][0] += dot(owned3, walked0);
      let walked1 = walkedChunk[(x + 8) * chunkStride + i];
      scores[0][1] += dot(owned0, walked1);
      scores[1][1] += dot(owned1, walked1);
      scores[2][1] += dot(owned2, walked1);
      scores[3][1] += dot(owned3, walked1);
      let walked2 = walkedChunk[(x + 16) * chunkStride + i];
      scores[0][2] += dot(owned0, walked2);
      scores[1][2] += dot(owned1, walked2);
      scores[2][2] += dot(owned2, walked2);
      scores[3][2] += dot(owned3, walked2);
      let walked3 = walkedChunk[(x + 24) * chunkStride + i];
      scores[0][3] += dot(owned0, walked3);
      scores[1][3] += dot(owned1, walked3);
      scores[2][3] += dot(owned2, walked3);
      scores[3][3] += dot(owned3, walked3);
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }
    var products = array<array<f32, rows>, rows>();
    for (var chunk = 0; chunk < valueChunks; chunk++) {
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (ownedRows[slot] >= 0 && chunk * 8 + x < valueVectors) {
        loaded = readDy(ownedRows[slot], chunk * 8 + x);
      }
      ownedChunk[slot * chunkStride + x] = loaded;
    }
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && chunk * 8 + x < valueVectors) {
        loaded = readValue(walkedRows[slot], chunk * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: products read rows that others loaded.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let owned0 = ownedChunk[(y + 0) * chunkStride + i];
      let owned1 = ownedChunk[(y + 8) * chunkStride + i];
      let owned2 = ownedChunk[(y + 16) * chunkStride + i];
      let owned3 = ownedChunk[(y + 24) * chunkStride + i];
      let walked0 = walkedChunk[(x + 0) * chunkStride + i];
      products[0][0] += dot(owned0, walked0);
      products[1][0] += dot(owned1, walked0);
      products[2][0] += dot(owned2, walked0);
      products[3][0] += dot(owned3, walked0);
      let walked1 = walkedChunk[(x + 8) * chunkStride + i];
      products[0][1] += dot(owned0, walked1);
      products[1][1] += dot(owned1, walked1);
      products[2][1] += dot(owned2, walked1);
      products[3][1] += dot(owned3, walked1);
      let walked2 = walkedChunk[(x + 16) * chunkStride + i];
      products[0][2] += dot(owned0, walked2);
      products[1][2] += dot(owned1, walked2);
      products[2][2] += dot(owned2, walked2);
      products[3][2] += dot(owned3, walked2);
      let walked3 = walkedChunk[(x + 24) * chunkStride + i];
      products[0][3] += dot(owned0, walked3);
      products[1][3] += dot(owned1, walked3);
      products[2][3] += dot(owned2, walked3);
      products[3][3] += dot(owned3, walked3);
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }

    // 3. Gradients of the scores: none where a row does not see a key.
    let position0 = select(nowhere, walkedRows[x + 0] - firstKeyRow, walkedRows[x + 0] >= 0);
    let position1 = select(nowhere, walkedRows[x + 8] - firstKeyRow, walkedRows[x + 8] >= 0);
    let position2 = select(nowhere, walkedRows[x + 16] - firstKeyRow, walkedRows[x + 16] >= 0);
    let position3 = select(nowhere, walkedRows[x + 24] - firstKeyRow, walkedRows[x + 24] >= 0);
    {
      let last = i32(lastSeen[0]);
      scores[0][0] = select(
        0.0,
        exp2(uniforms.logitScale * scores[0][0] - logSum[0]) * (products[0][0] - delta[0]),
        position0 <= last);
      scores[0][1] = select(
        0.0,
        exp2(uniforms.logitScale * scores[0][1] - logSum[0]) * (products[0][1] - delta[0]),
        position1 <= last);
      scores[0][2] = select(
        0.0,
        exp2(uniforms.logitScale * scores[0][2] - logSum[0]) * (products[0][2] - delta[0]),
        position2 <= last);
      scores[0][3] = select(
        0.0,
        exp2(uniforms.logitScale * scores[0][3] - logSum[0]) * (products[0][3] - delta[0]),
        position3 <= last);
    }
    {
      let last = i32(lastSeen[1]);
      scores[1][0] = select(
        0.0,
        exp2(uniforms.logitScale * scores[1][0] - logSum[1]) * (products[1][0] - delta[1]),
        position0 <= last);
      scores[1][1] = select(
        0.0,
        exp2(uniforms.logitScale * scores[1][1] - logSum[1]) * (products[1][1] - delta[1]),
        position1 <= last);
      scores[1][2] = select(
        0.0,
        exp2(uniforms.logitScale * scores[1][2] - logSum[1]) * (products[1][2] - delta[1]),
        position2 <= last);
      scores[1][3] = select(
        0.0,
        exp2(uniforms.logitScale * scores[1][3] - logSum[1]) * (products[1][3] - delta[1]),
        position3 <= last);
    }
    {
      let last = i32(lastSeen[2]);
      scores[2][0] = select(
        0.0,
        exp2(uniforms.logitScale * scores[2][0] - logSum[2]) * (products[2][0] - delta[2]),
        position0 <= last);
      scores[2][1] = select(
        0.0,
        exp2(uniforms.logitScale * scores[2][1] - logSum[2]) * (products[2][1] - delta[2]),
        position1 <= last);
      scores[2][2] = select(
        0.0,
        exp2(uniforms.logitScale * scores[2][2] - logSum[2]) * (products[2][2] - delta[2]),
        position2 <= last);
      scores[2][3] = select(
        0.0,
        exp2(uniforms.logitScale * scores[2][3] - logSum[2]) * (products[2][3] - delta[2]),
        position3 <= last);
    }
    {
      let last = i32(lastSeen[3]);
      scores[3][0] = select(
        0.0,
        exp2(uniforms.logitScale * scores[3][0] - logSum[3]) * (products[3][0] - delta[3]),
        position0 <= last);
      scores[3][1] = select(
        0.0,
        exp2(uniforms.logitScale * scores[3][1] - logSum[3]) * (products[3][1] - delta[3]),
        position1 <= last);
      scores[3][2] = select(
        0.0,
        exp2(uniforms.logitScale * scores[3][2] - logSum[3]) * (products[3][2] - delta[3]),
        position2 <= last);
      scores[3][3] = select(
        0.0,
        exp2(uniforms.logitScale * scores[3][3] - logSum[3]) * (products[3][3] - delta[3]),
        position3 <= last);
    }

    // 4. Times the keys.
    weights[(y + 0) * 9 + x] = vec4<f32>(scores[0][0], scores[0][1], scores[0][2], scores[0][3]);
    weights[(y + 8) * 9 + x] = vec4<f32>(scores[1][0], scores[1][1], scores[1][2], scores[1][3]);
    weights[(y + 16) * 9 + x] = vec4<f32>(scores[2][0], scores[2][1], scores[2][2], scores[2][3]);
    weights[(y + 24) * 9 + x] = vec4<f32>(scores[3][0], scores[3][1], scores[3][2], scores[3][3]);
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 0 * 8 + x < headVectors) {
        loaded = readKey(walkedRows[slot], 0 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      gradient[0][0] += weights0[0] * walked0;
      gradient[1][0] += weights1[0] * walked0;
      gradient[2][0] += weights2[0] * walked0;
      gradient[3][0] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      gradient[0][0] += weights0[1] * walked1;
      gradient[1][0] += weights1[1] * walked1;
      gradient[2][0] += weights2[1] * walked1;
      gradient[3][0] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      gradient[0][0] += weights0[2] * walked2;
      gradient[1][0] += weights1[2] * walked2;
      gradient[2][0] += weights2[2] * walked2;
      gradient[3][0] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      gradient[0][0] += weights0[3] * walked3;
      gradient[1][0] += weights1[3] * walked3;
      gradient[2][0] += weights2[3] * walked3;
      gradient[3][0] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 1 * 8 + x < headVectors) {
        loaded = readKey(walkedRows[slot], 1 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      gradient[0][1] += weights0[0] * walked0;
      gradient[1][1] += weights1[0] * walked0;
      gradient[2][1] += weights2[0] * walked0;
      gradient[3][1] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      gradient[0][1] += weights0[1] * walked1;
      gradient[1][1] += weights1[1] * walked1;
      gradient[2][1] += weights2[1] * walked1;
      gradient[3][1] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      gradient[0][1] += weights0[2] * walked2;
      gradient[1][1] += weights1[2] * walked2;
      gradient[2][1] += weights2[2] * walked2;
      gradient[3][1] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      gradient[0][1] += weights0[3] * walked3;
      gradient[1][1] += weights1[3] * walked3;
      gradient[2][1] += weights2[3] * walked3;
      gradient[3][1] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();
  }

  if (firstRow + y + 0 < endRow) { writeGradient(firstQueryRow + firstRow + y + 0, 0 + x, uniforms.scale * gradient[0][0]); }
    if (firstRow + y + 8 < endRow) { writeGradient(firstQueryRow + firstRow + y + 8, 0 + x, uniforms.scale * gradient[1][0]); }
    if (firstRow + y + 16 < endRow) { writeGradient(firstQueryRow + firstRow + y + 16, 0 + x, uniforms.scale * gradient[2][0]); }
    if (firstRow + y + 24 < endRow) { writeGradient(firstQueryRow + firstRow + y + 24, 0 + x, uniforms.scale * gradient[3][0]); }
    if (firstRow + y + 0 < endRow) { writeGradient(firstQueryRow + firstRow + y + 0, 8 + x, uniforms.scale * gradient[0][1]); }
    if (firstRow + y + 8 < endRow) { writeGradient(firstQueryRow + firstRow + y + 8, 8 + x, uniforms.scale * gradient[1][1]); }
    if (firstRow + y + 16 < endRow) { writeGradient(firstQueryRow + firstRow + y + 16, 8 + x, uniforms.scale * gradient[2][1]); }
    if (firstRow + y + 24 < endRow) { writeGradient(firstQueryRow + firstRow + y + 24, 8 + x, uniforms.scale * gradient[3][1]); }
}
