// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys of
// the blocks in its list and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the vec4 columns x + o * threadsX, the row's maximum (the same in all x), and the sum of the
// weights of its own columns alone, added up over x once at the end.
//
// Workgroup memory: queryTile for the whole run; keyTile, first keys, then the values of the same keys; keyPositions,
// their original indices; rowPartials, one maximum (at the end: sum) a row and x; probabilities, the weights.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}

const threads = 128;
const threadsX = 8;
const threadsY = 16;
const rows = 4;
const columns = 4;
const tileQueries = 64;
const tileKeys = 32;
const headVectors = 16;
const rowStride = 17;
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;

var<workgroup> queryTile : array<vec4<f32>, 1088>;
var<workgroup> keyTile : array<vec4<f32>, 544>;

fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }

// Loads query rows [firstRow, endRow) of a head, scaled; zeros follow.
fn loadQueryTile(head : i32, firstRow : i32, endRow : i32) {
  for (var i = i32(localIndex); i < tileQueries * headVectors; i += threads) {
    let row = firstRow + i / headVectors;
    var x = vec4<f32>(0.0);
    if (row < endRow) {
      x = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + row, i % headVectors);
    }
    queryTile[(i / headVectors) * rowStride + i % headVectors] = x;
  }
}

// This invocation's part of queryTile · keyTileᵀ.
fn tileScores(x : i32, y : i32) -> array<array<f32, columns>, rows> {
  var scores : array<array<f32, columns>, rows>;
  for (var i = 0; i < headVectors; i++) {
    var q : array<vec4<f32>, rows>;
    for (var r = 0; r < rows; r++) {
      q[r] = queryTile[(y + r * threadsY) * rowStride + i];
    }
    for (var c = 0; c < columns; c++) {
      let k = keyTile[(x + c * threadsX) * rowStride + i];
      for (var r = 0; r < rows; r++) {
        scores[r][c] += dot(q[r], k);
      }
    }
  }
  return scores;
}
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
fn writeOutput(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }
var<workgroup> keyPositions : array<i32, 32>;
var<workgroup> rowPartials : array<f32, 512>;
var<workgroup> probabilities : array<vec4<f32>, 512>;
var<workgroup> keyTileCount : i32;
const outputVectors = 2;
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

// Slots [first, end) in the permuted order that key tile t covers.
fn keySlots(head : i32, tile : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileKeys);
  let block = blockLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileKeys;
  let end = min((block + 1) * uniforms.blockSize, uniforms.keyShape.z);
  return vec2<i32>(first, min(first + tileKeys, end));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}

// Gathers the keys of the slots [first, end) and notes where they stand; the padding is zeros, nowhere.
fn loadKeyTile(head : i32, heads : i32, first : i32, end : i32) {
  for (var i = i32(localIndex); i < tileKeys * headVectors; i += threads) {
    let slot = i / headVectors;
    let vector = i % headVectors;
    var position = nowhere;
    var x = vec4<f32>(0.0);
    if (first + slot < end) {
      position = keyPosition(head, first + slot);
      x = readKey(keyRow(head, heads, position), vector);
    }
    keyTile[slot * rowStride + vector] = x;
    if (vector == 0) {
      keyPositions[slot] = position;
    }
  }
}

fn loadValueTile(head : i32, heads : i32) {
  for (var i = i32(localIndex); i < tileKeys * headVectors; i += threads) {
    let slot = i / headVectors;
    let position = keyPositions[slot];
    var x = vec4<f32>(0.0);
    if (position != nowhere) {
      x = readValue(keyRow(head, heads, position), i % headVectors);
    }
    keyTile[slot * rowStride + i % headVectors] = x;
  }
}

fn main(index : i32) {
  let x = i32(localIndex) % threadsX;
  let y = i32(localIndex) / threadsX;
  let heads = uniforms.queryShape.y;
  let allHeads = uniforms.queryShape.x * heads;
  let head = workgroupIndex() % allHeads;
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

  var rowMax : array<f32, rows>;
  var rowSum : array<f32, rows>;
  var output : array<array<vec4<f32>, outputVectors>, rows>;
  // Empty state of the online softmax: nothing seen, all sums zero.
  for (var r = 0; r < rows; r++) {
    rowMax[r] = masked;
  }
  loadQueryTile(head, firstRow, endRow);

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys.
    let slots = keySlots(head, queryTileIndex, t);
    loadKeyTile(head, heads, slots.x, slots.y);
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();

    // 2. Scores, masked, and the maximum of each row over this invocation's columns.
    var scores = tileScores(x, y);
    for (var r = 0; r < rows; r++) {
      let lastVisible = firstRow + y + r * threadsY;
      var columnMax = masked;
      for (var c = 0; c < columns; c++) {
        scores[r][c] = select(scores[r][c], masked, keyPositions[x + c * threadsX] > lastVisible);
        columnMax = max(columnMax, scores[r][c]);
      }
      rowPartials[(y + r * threadsY) * threadsX + x] = columnMax;
    }
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    for (var r = 0; r < rows; r++) {
      let row = (y + r * threadsY) * threadsX;
      var newMax = rowMax[r];
      for (var i = 0; i < threadsX; i++) {
        newMax = max(newMax, rowPartials[row + i]);
      }
      let rescale = exp2(rowMax[r] - newMax);
      rowMax[r] = newMax;
      rowSum[r] *= rescale;
      for (var o = 0; o < outputVectors; o++) {
        output[r][o] *= rescale;
      }
      var weights : vec4<f32>;
      for (var c = 0; c < columns; c++) {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        weights[c] = select(exp2(scores[r][c] - newMax), 0.0, scores[r][c] == masked);
        rowSum[r] += weights[c];
      }
      probabilities[row + x] = weights;
    }
    loadValueTile(head, heads);
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();

    // 4. Weighted sum of values.
    for (var i = 0; i < threadsX; i++) {
      var weights : array<vec4<f32>, rows>;
      for (var r = 0; r < rows; r++) {
        weights[r] = probabilities[(y + r * threadsY) * threadsX + i];
      }
      for (var c = 0; c < columns; c++) {
        for (var o = 0; o < outputVectors; o++) {
          let vector = x + o * threadsX;
          if (vector < headVectors) {
            let v = keyTile[(i + c * threadsX) * rowStride + vector];
            for (var r = 0; r < rows; r++) {
              output[r][o] += weights[r][c] * v;
            }
          }
        }
      }
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
  for (var r = 0; r < rows; r++) {
    rowPartials[(y + r * threadsY) * threadsX + x] = rowSum[r];
  }
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  for (var r = 0; r < rows; r++) {
    let row = firstRow + y + r * threadsY;
    var sum = 0.0;
    for (var i = 0; i < threadsX; i++) {
      sum += rowPartials[(y + r * threadsY) * threadsX + i];
    }
    for (var o = 0; o < outputVectors; o++) {
      let vector = x + o * threadsX;
      if (row < endRow && vector < headVectors) {
        // A row that saw nothing is zeros.
        writeOutput(head * uniforms.queryShape.z + row, vector, select(output[r][o] / sum, vec4<f32>(0.0), sum == 0.0));
      }
    }
  }
}
