// A workgroup takes tileQueries of the chosen rows of one head, which can belong to several query blocks, and some key
// blocks, over which it walks in tiles of tileKeys keys. Invocation (x, y) keeps, in registers, maximum and sum of its rows
// over its own columns; at the end of each key block they are combined over x, in workgroup memory.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return ((uniforms.queryOffset + queryBlock * uniforms.blockSize) / (uniforms.blocksPerSegment * uniforms.blockSize)) * uniforms.blocksPerSegment;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let scored = scoredBlocks(queryBlock);
  return min(((uniforms.queryOffset + min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1) / (uniforms.blocksPerSegment * uniforms.blockSize)) * uniforms.blocksPerSegment + uniforms.blocksPerSegment, uniforms.keyBlocks);
}
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.queryShape.y], 0, uniforms.keyShape.z);
}

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
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;

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

// This invocation's part of queryTile · keyTileᵀ; as fma by component, since a dot product would be added in a fifth step.
fn tileScores(x : i32, y : i32) -> array<array<f32, columns>, rows> {
  var scores : array<array<f32, columns>, rows>;
  for (var i = 0; i < headVectors; i += 4) {
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 0];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 0];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 0];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 0];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 0];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 0];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 1];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 1];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 1];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 1];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 1];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 1];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 2];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 2];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 2];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 2];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 2];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 2];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * rowStride + i + 3];
    let q1 = queryTile[(y + 1 * threadsY) * rowStride + i + 3];
    let q2 = queryTile[(y + 2 * threadsY) * rowStride + i + 3];
    let q3 = queryTile[(y + 3 * threadsY) * rowStride + i + 3];
      let k0 = keyTile[(x + 0 * threadsX) * rowStride + i + 3];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * rowStride + i + 3];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
  }
  return scores;
}
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
// Query rows of the tile, -1 past the last; the last key position that each may see.
var<workgroup> rowsOfTile : array<i32, tileQueries>;
var<workgroup> partialMax : array<f32, 512>;
var<workgroup> partialSum : array<f32, 512>;
// Key blocks [x, y) of this workgroup.
var<workgroup> span : vec2<i32>;

fn loadChosenRows(head : i32) {
  let load0 = i32(localIndex) + 0;
    var x0 = vec4<f32>(0.0);
    if (rowsOfTile[load0 / headVectors] >= 0) {
      x0 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + rowsOfTile[load0 / headVectors], load0 % headVectors);
    }
    let load1 = i32(localIndex) + 128;
    var x1 = vec4<f32>(0.0);
    if (rowsOfTile[load1 / headVectors] >= 0) {
      x1 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + rowsOfTile[load1 / headVectors], load1 % headVectors);
    }
    let load2 = i32(localIndex) + 256;
    var x2 = vec4<f32>(0.0);
    if (rowsOfTile[load2 / headVectors] >= 0) {
      x2 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + rowsOfTile[load2 / headVectors], load2 % headVectors);
    }
    let load3 = i32(localIndex) + 384;
    var x3 = vec4<f32>(0.0);
    if (rowsOfTile[load3 / headVectors] >= 0) {
      x3 = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + rowsOfTile[load3 / headVectors], load3 % headVectors);
    }
    { queryTile[(load0 / headVectors) * rowStride + load0 % headVectors] = x0; }
    { queryTile[(load1 / headVectors) * rowStride + load1 % headVectors] = x1; }
    { queryTile[(load2 / headVectors) * rowStride + load2 % headVectors] = x2; }
    { queryTile[(load3 / headVectors) * rowStride + load3 % headVectors] = x3; }
}

// Slots [first, end) of the permuted order that tile t covers, of the tiles of some blocks from firstBlock on.
fn slotsOf(firstBlock : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = (uniforms.blockSize + tileKeys - 1) / tileKeys;
  let first = (firstBlock + t / tilesPerBlock) * uniforms.blockSize;
  let end = min(first + uniforms.blockSize, uniforms.keyShape.z);
  let start = first + (t % tilesPerBlock) * tileKeys;
  return vec2<i32>(start, min(start + tileKeys, end));
}

// Position of the key in a slot of a tile; that of the last key in its place where there is none.
fn positionIn(head : i32, slots : vec2<i32>, slot : i32) -> i32 {
  let last = uniforms.keyShape.z - 1;
  return keyIndices[head * (last + 1) + clamp(slots.x + slot, 0, last)];
}

fn main(index : i32) {
  let local = i32(localIndex);
  let x = ((local >> 1) & 1) + ((local >> 2) & 2) + 4 * ((local >> 4) % 4);
  let y = (local & 1) + ((local >> 1) & 2) + 4 * ((local >> 4) / 4);
  let chosenRows = uniforms.outShape.y;
  let part = workgroupIndex() % uniforms.parts;
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let rowTile = uniforms.rowTiles - 1 - (workgroupIndex() / uniforms.parts) % uniforms.rowTiles;
  let head = workgroupIndex() / (uniforms.parts * uniforms.rowTiles);
  let exists = head < uniforms.outShape.x;
  let firstChosen = rowTile * tileQueries;
  let endChosen = select(firstChosen, min(firstChosen + tileQueries, chosenRows), exists);
  for (var i = local; i < tileQueries; i += threads) {
    var row = -1;
    if (firstChosen + i < endChosen) {
      row = probes[head * chosenRows + firstChosen + i];
    }
    rowsOfTile[i] = row;
  }
  if (local == 0) {
    let firstBlock = 0 + part * uniforms.blocksPerWorkgroup;
    let endBlock = min(firstBlock + uniforms.blocksPerWorkgroup, visibleBlocks((endChosen - 1) / uniforms.rowsPerBlock));
    span = vec2<i32>(firstBlock, select(firstBlock, endBlock, firstChosen < endChosen));
  }
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform load, which is also the
  // barrier between writing and reading the rows.
  let blocks = workgroupUniformLoad(&span);
  loadChosenRows(head);
  let end = keyEnd(head);
  var lastVisible : array<i32, rows>;
  for (var r = 0; r < rows; r++) {
    lastVisible[r] = min(end - 1, uniforms.queryOffset + rowsOfTile[y + r * threadsY]);
  }

  // What this invocation carries from global memory to keyTile, and the positions in which it stands: read ahead, positions
  // by two tiles and keys by one, so that a load has a round to arrive.
  let tilesPerBlock = (uniforms.blockSize + tileKeys - 1) / tileKeys;
  let firstKeyRow = keyRow(head, uniforms.queryShape.y, 0);
  var carried : array<vec4<f32>, 4>;
  var positions : array<i32, 4>;
  positions[0] = positionIn(head, slotsOf(blocks.x, 0), (local + 0 * threads) / headVectors);
    positions[1] = positionIn(head, slotsOf(blocks.x, 0), (local + 1 * threads) / headVectors);
    positions[2] = positionIn(head, slotsOf(blocks.x, 0), (local + 2 * threads) / headVectors);
    positions[3] = positionIn(head, slotsOf(blocks.x, 0), (local + 3 * threads) / headVectors);
  carried[0] = readKey(firstKeyRow + positions[0], (local + 0 * threads) % headVectors);
    carried[1] = readKey(firstKeyRow + positions[1], (local + 1 * threads) % headVectors);
    carried[2] = readKey(firstKeyRow + positions[2], (local + 2 * threads) % headVectors);
    carried[3] = readKey(firstKeyRow + positions[3], (local + 3 * threads) % headVectors);
  positions[0] = positionIn(head, slotsOf(blocks.x, 1), (local + 0 * threads) / headVectors);
    positions[1] = positionIn(head, slotsOf(blocks.x, 1), (local + 1 * threads) / headVectors);
    positions[2] = positionIn(head, slotsOf(blocks.x, 1), (local + 2 * threads) / headVectors);
    positions[3] = positionIn(head, slotsOf(blocks.x, 1), (local + 3 * threads) / headVectors);
  // In blocks that compete for all query blocks of the tile, every row sees every key that is not padding.
  let open = min(scoredBlocks(firstChosen / uniforms.rowsPerBlock), end / uniforms.blockSize);

  for (var block = blocks.x; block < blocks.y; block++) {
    var rowMax = array<f32, rows>();
    var rowSum = array<f32, rows>();
    for (var r = 0; r < rows; r++) {
      rowMax[r] = masked;
    }
    for (var tile = 0; tile < tilesPerBlock; tile++) {
      let t = (block - blocks.x) * tilesPerBlock + tile;
      {
        let at = local + 0 * threads;
        keyTile[(at / headVectors) * rowStride + at % headVectors] = carried[0];
      }
      {
        let at = local + 1 * threads;
        keyTile[(at / headVectors) * rowStride + at % headVectors] = carried[1];
      }
      {
        let at = local + 2 * threads;
        keyTile[(at / headVectors) * rowStride + at % headVectors] = carried[2];
      }
      {
        let at = local + 3 * threads;
        keyTile[(at / headVectors) * rowStride + at % headVectors] = carried[3];
      }
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      carried[0] = readKey(firstKeyRow + positions[0], (local + 0 * threads) % headVectors);
    carried[1] = readKey(firstKeyRow + positions[1], (local + 1 * threads) % headVectors);
    carried[2] = readKey(firstKeyRow + positions[2], (local + 2 * threads) % headVectors);
    carried[3] = readKey(firstKeyRow + positions[3], (local + 3 * threads) % headVectors);
      positions[0] = positionIn(head, slotsOf(blocks.x, t + 2), (local + 0 * threads) / headVectors);
      positions[1] = positionIn(head, slotsOf(blocks.x, t + 2), (local + 1 * threads) / headVectors);
      positions[2] = positionIn(head, slotsOf(blocks.x, t + 2), (local + 2 * threads) / headVectors);
      positions[3] = positionIn(head, slotsOf(blocks.x, t + 2), (local + 3 * threads) / headVectors);
      var scores = tileScores(x, y);
      let slots = slotsOf(blocks.x, t);
      if (block >= open || slots.y - slots.x < tileKeys) {
        for (var c = 0; c < columns; c++) {
          let slot = x + c * threadsX;
          let position = select(0x7fffffff, positionIn(head, slots, slot), slots.x + slot < slots.y);
          for (var r = 0; r < rows; r++) {
            scores[r][c] = select(scores[r][c], masked, position > lastVisible[r]);
          }
        }
      }
      for (var r = 0; r < rows; r++) {
        var newMax = max(rowMax[r], lowest);
        newMax = max(newMax, scores[r][0]);
        newMax = max(newMax, scores[r][1]);
        rowSum[r] = rowSum[r] * exp2(rowMax[r] - newMax) + exp2(scores[r][0] - newMax) + exp2(scores[r][1] - newMax);
        rowMax[r] = newMax;
      }
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();
    }
    for (var r = 0; r < rows; r++) {
      partialMax[(y + r * threadsY) * threadsX + x] = rowMax[r];
      partialSum[(y + r * threadsY) * threadsX + x] = rowSum[r];
    }
    // Barrier: a row's sum needs the parts of all x. (The next block's parts come after the barriers of its tiles.)
    workgroupBarrier();
    for (var i = local; i < tileQueries; i += threads) {
      var total = masked;
      for (var j = 0; j < threadsX; j++) {
        total = max(total, partialMax[i * threadsX + j]);
      }
      var sum = 0.0;
      for (var j = 0; j < threadsX; j++) {
        sum += partialSum[i * threadsX + j] * exp2(partialMax[i * threadsX + j] - total);
      }
      let chosen = firstChosen + i;
      let column = block;
      if (chosen < endChosen && column >= 0 && column < uniforms.outShape.z) {
        result[(head * chosenRows + chosen) * uniforms.outShape.z + column] = select(total + log2(sum), masked, sum == 0.0);
      }
    }
  }
}
