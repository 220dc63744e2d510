// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys of
// the blocks in its list and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the vec4 columns x + o * threadsX, the row's maximum (the same in all x), and the sum of the
// weights of its own columns alone, added up over x once at the end.
//
// Workgroup memory: queryTile for the whole run; keyTile, first keys, then the values of the same keys; keyPositions,
// their original indices; rowPartials, the maxima (at the end: sums) of the rows of a y over the columns of an x;
// probabilities, the weights of a row in the columns of an x.
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.

const threads = 128;
const threadsX = 16;
const threadsY = 8;
const rows = 4;
const columns = 2;
const tileQueries = 32;
const tileKeys = 32;
const headVectors = 16;
const rowStride = 17;
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;

var<workgroup> queryTile : array<vec4<f32>, 544>;
var<workgroup> keyTile : array<vec4<f32>, 544>;

fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }

// Loads query rows [firstRow, endRow) of a head, scaled; zeros follow.
fn loadQueryTile(head : i32, firstRow : i32, endRow : i32) {
  let load0 = i32(localIndex) + 0;
    var x0 = vec4<f32>(0.0);
    if (firstRow + load0 / headVectors < endRow) {
      x0 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + load0 / headVectors, load0 % headVectors);
    }
    let load1 = i32(localIndex) + 128;
    var x1 = vec4<f32>(0.0);
    if (firstRow + load1 / headVectors < endRow) {
      x1 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + load1 / headVectors, load1 % headVectors);
    }
    let load2 = i32(localIndex) + 256;
    var x2 = vec4<f32>(0.0);
    if (firstRow + load2 / headVectors < endRow) {
      x2 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + load2 / headVectors, load2 % headVectors);
    }
    let load3 = i32(localIndex) + 384;
    var x3 = vec4<f32>(0.0);
    if (firstRow + load3 / headVectors < endRow) {
      x3 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + load3 / headVectors, load3 % headVectors);
    }
    { queryTile[(load0 / headVectors) * rowStride + load0 % headVectors] = x0; }
    { queryTile[(load1 / headVectors) * rowStride + load1 % headVectors] = x1; }
    { queryTile[(load2 / headVectors) * rowStride + load2 % headVectors] = x2; }
    { queryTile[(load3 / headVectors) * rowStride + load3 % headVectors] = x3; }
}

// This invocation's part of queryTile · keyTileᵀ.
fn tileScores(x : i32, y : i32) -> array<array<f32, columns>, rows> {
  var scores : array<array<f32, columns>, rows>;
  for (var i = 0; i < headVectors; i += 4) {
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 0];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 0];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 0];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 0];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 0];
      scores[0][0] += dot(q0, k0);
    scores[1][0] += dot(q1, k0);
    scores[2][0] += dot(q2, k0);
    scores[3][0] += dot(q3, k0);
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 0];
      scores[0][1] += dot(q0, k1);
    scores[1][1] += dot(q1, k1);
    scores[2][1] += dot(q2, k1);
    scores[3][1] += dot(q3, k1);
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 1];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 1];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 1];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 1];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 1];
      scores[0][0] += dot(q0, k0);
    scores[1][0] += dot(q1, k0);
    scores[2][0] += dot(q2, k0);
    scores[3][0] += dot(q3, k0);
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 1];
      scores[0][1] += dot(q0, k1);
    scores[1][1] += dot(q1, k1);
    scores[2][1] += dot(q2, k1);
    scores[3][1] += dot(q3, k1);
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 2];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 2];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 2];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 2];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 2];
      scores[0][0] += dot(q0, k0);
    scores[1][0] += dot(q1, k0);
    scores[2][0] += dot(q2, k0);
    scores[3][0] += dot(q3, k0);
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 2];
      scores[0][1] += dot(q0, k1);
    scores[1][1] += dot(q1, k1);
    scores[2][1] += dot(q2, k1);
    scores[3][1] += dot(q3, k1);
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 3];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 3];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 3];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 3];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 3];
      scores[0][0] += dot(q0, k0);
    scores[1][0] += dot(q1, k0);
    scores[2][0] += dot(q2, k0);
    scores[3][0] += dot(q3, k0);
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 3];
      scores[0][1] += dot(q0, k1);
    scores[1][1] += dot(q1, k1);
    scores[2][1] += dot(q2, k1);
    scores[3][1] += dot(q3, k1);
    }
  }
  return scores;
}

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
fn writeOutput(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
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
  let blocks = uniforms.blockListsShape.z;
  let block = tile / tilesIn(uniforms.blockSize, tileQueries);
  return (head * blocks + block) * (blocks + 1);
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
var<workgroup> keyPositions : array<i32, tileKeys>;
var<workgroup> rowPartials : array<vec4<f32>, 128>;
var<workgroup> probabilities : array<vec2<f32>, 512>;
var<workgroup> keyTileCount : i32;
fn main(index : i32) {
  let x = i32(localIndex) % threadsX;
  let y = i32(localIndex) / threadsX;
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
    keyTileCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }
  // Barriers below stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec4<f32>(masked);
  var rowSum = vec4<f32>(0.0);
  var output : array<array<vec4<f32>, 1>, rows>;

  // What this invocation carries from global memory to keyTile: one vec4 of a key, then of its value, a round.
  let load0 = i32(localIndex) + 0 * threads;
    let load1 = i32(localIndex) + 1 * threads;
    let load2 = i32(localIndex) + 2 * threads;
    let load3 = i32(localIndex) + 3 * threads;
  var positions : array<i32, 4>;
  var nextPositions : array<i32, 4>;
  var fetched : array<vec4<f32>, 4>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  nextPositions[0] = positionIn(head, nextTile, load0 / headVectors);
    nextPositions[1] = positionIn(head, nextTile, load1 / headVectors);
    nextPositions[2] = positionIn(head, nextTile, load2 / headVectors);
    nextPositions[3] = positionIn(head, nextTile, load3 / headVectors);
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), load0 % headVectors);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), load1 % headVectors);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), load2 % headVectors);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), load3 % headVectors);
  loadQueryTile(head, firstRow, endRow);

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    positions[0] = nextPositions[0];
    {
      keyTile[(load0 / headVectors) * rowStride + load0 % headVectors] = fetched[0];
      if (load0 % headVectors == 0) {
        keyPositions[load0 / headVectors] = positions[0];
      }
    }
    positions[1] = nextPositions[1];
    {
      keyTile[(load1 / headVectors) * rowStride + load1 % headVectors] = fetched[1];
      if (load1 % headVectors == 0) {
        keyPositions[load1 / headVectors] = positions[1];
      }
    }
    positions[2] = nextPositions[2];
    {
      keyTile[(load2 / headVectors) * rowStride + load2 % headVectors] = fetched[2];
      if (load2 % headVectors == 0) {
        keyPositions[load2 / headVectors] = positions[2];
      }
    }
    positions[3] = nextPositions[3];
    {
      keyTile[(load3 / headVectors) * rowStride + load3 % headVectors] = fetched[3];
      if (load3 % headVectors == 0) {
        keyPositions[load3 / headVectors] = positions[3];
      }
    }
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    fetched[0] = readValue(firstKeyRow + min(positions[0], lastPosition), load0 % headVectors);
    fetched[1] = readValue(firstKeyRow + min(positions[1], lastPosition), load1 % headVectors);
    fetched[2] = readValue(firstKeyRow + min(positions[2], lastPosition), load2 % headVectors);
    fetched[3] = readValue(firstKeyRow + min(positions[3], lastPosition), load3 % headVectors);
    nextPositions[0] = positionIn(head, nextTile, load0 / headVectors);
    nextPositions[1] = positionIn(head, nextTile, load1 / headVectors);
    nextPositions[2] = positionIn(head, nextTile, load2 / headVectors);
    nextPositions[3] = positionIn(head, nextTile, load3 / headVectors);

    // 2. Scores, masked, and the maximum of each row over this invocation's columns.
    var scores = tileScores(x, y);
    let position0 = keyPositions[x + 0 * threadsX];
    let position1 = keyPositions[x + 1 * threadsX];
    var columnMax = vec4<f32>(masked);
    {
      let lastVisible = firstRow + y + 0 * threadsY;
      scores[0][0] = select(scores[0][0], masked, position0 > lastVisible);
      columnMax[0] = max(columnMax[0], scores[0][0]);
    scores[0][1] = select(scores[0][1], masked, position1 > lastVisible);
      columnMax[0] = max(columnMax[0], scores[0][1]);
    }
    {
      let lastVisible = firstRow + y + 1 * threadsY;
      scores[1][0] = select(scores[1][0], masked, position0 > lastVisible);
      columnMax[1] = max(columnMax[1], scores[1][0]);
    scores[1][1] = select(scores[1][1], masked, position1 > lastVisible);
      columnMax[1] = max(columnMax[1], scores[1][1]);
    }
    {
      let lastVisible = firstRow + y + 2 * threadsY;
      scores[2][0] = select(scores[2][0], masked, position0 > lastVisible);
      columnMax[2] = max(columnMax[2], scores[2][0]);
    scores[2][1] = select(scores[2][1], masked, position1 > lastVisible);
      columnMax[2] = max(columnMax[2], scores[2][1]);
    }
    {
      let lastVisible = firstRow + y + 3 * threadsY;
      scores[3][0] = select(scores[3][0], masked, position0 > lastVisible);
      columnMax[3] = max(columnMax[3], scores[3][0]);
    scores[3][1] = select(scores[3][1], masked, position1 > lastVisible);
      columnMax[3] = max(columnMax[3], scores[3][1]);
    }
    rowPartials[y * threadsX + x] = columnMax;
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    var newMax = rowMax;
    newMax = max(newMax, rowPartials[y * threadsX + 0]);
    newMax = max(newMax, rowPartials[y * threadsX + 1]);
    newMax = max(newMax, rowPartials[y * threadsX + 2]);
    newMax = max(newMax, rowPartials[y * threadsX + 3]);
    newMax = max(newMax, rowPartials[y * threadsX + 4]);
    newMax = max(newMax, rowPartials[y * threadsX + 5]);
    newMax = max(newMax, rowPartials[y * threadsX + 6]);
    newMax = max(newMax, rowPartials[y * threadsX + 7]);
    newMax = max(newMax, rowPartials[y * threadsX + 8]);
    newMax = max(newMax, rowPartials[y * threadsX + 9]);
    newMax = max(newMax, rowPartials[y * threadsX + 10]);
    newMax = max(newMax, rowPartials[y * threadsX + 11]);
    newMax = max(newMax, rowPartials[y * threadsX + 12]);
    newMax = max(newMax, rowPartials[y * threadsX + 13]);
    newMax = max(newMax, rowPartials[y * threadsX + 14]);
    newMax = max(newMax, rowPartials[y * threadsX + 15]);
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    rowSum *= rescale;
    {
      // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
      var weights : vec2<f32>;
      weights[0] = select(exp2(scores[0][0] - newMax[0]), 0.0, scores[0][0] == masked);
    weights[1] = select(exp2(scores[0][1] - newMax[0]), 0.0, scores[0][1] == masked);
      rowSum[0] += dot(weights, vec2<f32>(1.0));
      probabilities[(y + 0 * threadsY) * threadsX + x] = weights;
      output[0][0] *= rescale[0];
    }
    {
      // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
      var weights : vec2<f32>;
      weights[0] = select(exp2(scores[1][0] - newMax[1]), 0.0, scores[1][0] == masked);
    weights[1] = select(exp2(scores[1][1] - newMax[1]), 0.0, scores[1][1] == masked);
      rowSum[1] += dot(weights, vec2<f32>(1.0));
      probabilities[(y + 1 * threadsY) * threadsX + x] = weights;
      output[1][0] *= rescale[1];
    }
    {
      // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
      var weights : vec2<f32>;
      weights[0] = select(exp2(scores[2][0] - newMax[2]), 0.0, scores[2][0] == masked);
    weights[1] = select(exp2(scores[2][1] - newMax[2]), 0.0, scores[2][1] == masked);
      rowSum[2] += dot(weights, vec2<f32>(1.0));
      probabilities[(y + 2 * threadsY) * threadsX + x] = weights;
      output[2][0] *= rescale[2];
    }
    {
      // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
      var weights : vec2<f32>;
      weights[0] = select(exp2(scores[3][0] - newMax[3]), 0.0, scores[3][0] == masked);
    weights[1] = select(exp2(scores[3][1] - newMax[3]), 0.0, scores[3][1] == masked);
      rowSum[3] += dot(weights, vec2<f32>(1.0));
      probabilities[(y + 3 * threadsY) * threadsX + x] = weights;
      output[3][0] *= rescale[3];
    }
    {
      // Padding has no weight, but zero times a NaN is a NaN.
      let value = select(fetched[0], vec4<f32>(0.0), positions[0] == nowhere);
      keyTile[(load0 / headVectors) * rowStride + load0 % headVectors] = value;
    }
    {
      // Padding has no weight, but zero times a NaN is a NaN.
      let value = select(fetched[1], vec4<f32>(0.0), positions[1] == nowhere);
      keyTile[(load1 / headVectors) * rowStride + load1 % headVectors] = value;
    }
    {
      // Padding has no weight, but zero times a NaN is a NaN.
      let value = select(fetched[2], vec4<f32>(0.0), positions[2] == nowhere);
      keyTile[(load2 / headVectors) * rowStride + load2 % headVectors] = value;
    }
    {
      // Padding has no weight, but zero times a NaN is a NaN.
      let value = select(fetched[3], vec4<f32>(0.0), positions[3] == nowhere);
      keyTile[(load3 / headVectors) * rowStride + load3 % headVectors] = value;
    }
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), load0 % headVectors);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), load1 % headVectors);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), load2 % headVectors);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), load3 % headVectors);

    // 4. Weighted sum of values.
    for (var i = 0; i < threadsX; i += 4) {
      {
      let weights0 = probabilities[(y + 0 * threadsY) * threadsX + i + 0];
    let weights1 = probabilities[(y + 1 * threadsY) * threadsX + i + 0];
    let weights2 = probabilities[(y + 2 * threadsY) * threadsX + i + 0];
    let weights3 = probabilities[(y + 3 * threadsY) * threadsX + i + 0];
      {
        let v = keyTile[(i + 0 + 0 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[0] * v;
    output[1][0] += weights1[0] * v;
    output[2][0] += weights2[0] * v;
    output[3][0] += weights3[0] * v;
      }
    {
        let v = keyTile[(i + 0 + 1 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[1] * v;
    output[1][0] += weights1[1] * v;
    output[2][0] += weights2[1] * v;
    output[3][0] += weights3[1] * v;
      }
      }
    {
      let weights0 = probabilities[(y + 0 * threadsY) * threadsX + i + 1];
    let weights1 = probabilities[(y + 1 * threadsY) * threadsX + i + 1];
    let weights2 = probabilities[(y + 2 * threadsY) * threadsX + i + 1];
    let weights3 = probabilities[(y + 3 * threadsY) * threadsX + i + 1];
      {
        let v = keyTile[(i + 1 + 0 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[0] * v;
    output[1][0] += weights1[0] * v;
    output[2][0] += weights2[0] * v;
    output[3][0] += weights3[0] * v;
      }
    {
        let v = keyTile[(i + 1 + 1 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[1] * v;
    output[1][0] += weights1[1] * v;
    output[2][0] += weights2[1] * v;
    output[3][0] += weights3[1] * v;
      }
      }
    {
      let weights0 = probabilities[(y + 0 * threadsY) * threadsX + i + 2];
    let weights1 = probabilities[(y + 1 * threadsY) * threadsX + i + 2];
    let weights2 = probabilities[(y + 2 * threadsY) * threadsX + i + 2];
    let weights3 = probabilities[(y + 3 * threadsY) * threadsX + i + 2];
      {
        let v = keyTile[(i + 2 + 0 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[0] * v;
    output[1][0] += weights1[0] * v;
    output[2][0] += weights2[0] * v;
    output[3][0] += weights3[0] * v;
      }
    {
        let v = keyTile[(i + 2 + 1 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[1] * v;
    output[1][0] += weights1[1] * v;
    output[2][0] += weights2[1] * v;
    output[3][0] += weights3[1] * v;
      }
      }
    {
      let weights0 = probabilities[(y + 0 * threadsY) * threadsX + i + 3];
    let weights1 = probabilities[(y + 1 * threadsY) * threadsX + i + 3];
    let weights2 = probabilities[(y + 2 * threadsY) * threadsX + i + 3];
    let weights3 = probabilities[(y + 3 * threadsY) * threadsX + i + 3];
      {
        let v = keyTile[(i + 3 + 0 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[0] * v;
    output[1][0] += weights1[0] * v;
    output[2][0] += weights2[0] * v;
    output[3][0] += weights3[0] * v;
      }
    {
        let v = keyTile[(i + 3 + 1 * threadsX) * rowStride + x + 0 * threadsX];
        output[0][0] += weights0[1] * v;
    output[1][0] += weights1[1] * v;
    output[2][0] += weights2[1] * v;
    output[3][0] += weights3[1] * v;
      }
      }
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
  rowPartials[y * threadsX + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec4<f32>(0.0);
  sum += rowPartials[y * threadsX + 0];
    sum += rowPartials[y * threadsX + 1];
    sum += rowPartials[y * threadsX + 2];
    sum += rowPartials[y * threadsX + 3];
    sum += rowPartials[y * threadsX + 4];
    sum += rowPartials[y * threadsX + 5];
    sum += rowPartials[y * threadsX + 6];
    sum += rowPartials[y * threadsX + 7];
    sum += rowPartials[y * threadsX + 8];
    sum += rowPartials[y * threadsX + 9];
    sum += rowPartials[y * threadsX + 10];
    sum += rowPartials[y * threadsX + 11];
    sum += rowPartials[y * threadsX + 12];
    sum += rowPartials[y * threadsX + 13];
    sum += rowPartials[y * threadsX + 14];
    sum += rowPartials[y * threadsX + 15];
  {
    let row = firstRow + y + 0 * threadsY;
    if (row < endRow) {
      // A row that saw nothing is zeros.
      let mean = select(output[0][0] / sum[0], vec4<f32>(0.0), sum[0] == 0.0);
      writeOutput(head * uniforms.queryShape.z + row, x + 0 * threadsX, mean);
    }
  }
    {
    let row = firstRow + y + 1 * threadsY;
    if (row < endRow) {
      // A row that saw nothing is zeros.
      let mean = select(output[1][0] / sum[1], vec4<f32>(0.0), sum[1] == 0.0);
      writeOutput(head * uniforms.queryShape.z + row, x + 0 * threadsX, mean);
    }
  }
    {
    let row = firstRow + y + 2 * threadsY;
    if (row < endRow) {
      // A row that saw nothing is zeros.
      let mean = select(output[2][0] / sum[2], vec4<f32>(0.0), sum[2] == 0.0);
      writeOutput(head * uniforms.queryShape.z + row, x + 0 * threadsX, mean);
    }
  }
    {
    let row = firstRow + y + 3 * threadsY;
    if (row < endRow) {
      // A row that saw nothing is zeros.
      let mean = select(output[3][0] / sum[3], vec4<f32>(0.0), sum[3] == 0.0);
      writeOutput(head * uniforms.queryShape.z + row, x + 0 * threadsX, mean);
    }
  }
}
