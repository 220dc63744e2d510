// A workgroup computes the output of 64 query rows of one head; each of its 4 subgroups owns 16 of them. It walks
// over tiles of 16 keys with an online softmax, whose products run on matrix units: float16 in, float32 sums.
//
// Who holds an element of a matrix in registers is not known, so everything that is done by row passes through workgroup
// memory: scores go out, two neighbouring invocations turn a row of them into weights, and the weights come back as a
// matrix. The output matrices stay in registers, relative to a maximum that follows the row's true one with some
// headroom; only when that is used up do they go out to be scaled.
//
// Workgroup memory: tiles holds keys, then values, float16; scores and weights have
// a part for each subgroup. Keys and values of the next tile are read from global memory while this one is computed. Each variable
// takes whole 16 bytes: a driver may put them in any order, and fragments must begin there.
const threads = 128;
const tileQueries = 64;
const tileKeys = 16;
var<workgroup> tiles : array<f16, 2304>;
fn writeOutput(row : i32, vector : i32, x : vec4<f32>) { result[row * 16 + vector] = x; }

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
fn cappedScore(score : f32) -> f32 {
  let power = exp2(min(score * (2.8853900817779268f * uniforms.inverseSoftCap), 126.0));
  return fma(-2.0 * uniforms.softCap, 1.0 / (power + 1.0), uniforms.softCap);
}

fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryLength));
}

fn countKeyTiles(head : i32, endRow : i32) -> i32 {
  return (endRow + tileKeys - 1) / tileKeys;
}


// The first tile of keys with one in the window of a row.
fn firstKeyTile(tile : i32) -> i32 {
  return max(0, uniforms.firstPosition + ownedSpan(tile).x - uniforms.window + 1) / tileKeys;
}
// The first key of the first tile that this workgroup walks over.
var<private> windowStart : i32;
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  let first = windowStart + t * tileKeys;
  return vec2<i32>(first, min(first + tileKeys, uniforms.keyLength));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return slot;
}

// Original index of the key in a slot of the tile that covers slots [tile.x, tile.y).
fn positionIn(head : i32, tile : vec2<i32>, slot : i32) -> i32 {
  if (tile.x + slot < tile.y) {
    return keyPosition(head, tile.x + slot);
  }
  return paddingPosition;
}

fn notFinite(x : vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

// 16 bytes: see keyTileCount.
var<workgroup> anyWithheld : array<atomic<u32>, 4>;

fn withhold(x : vec4<f32>) -> vec4<f32> {
  let isWithheld = notFinite(x);
  if (any(isWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  return select(x, vec4<f32>(0.0), isWithheld);
}

fn withheldOf(x : vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(0.0), x, notFinite(x));
}


fn withholdWords(words : vec4<i32>) -> vec4<i32> {
  let bits = bitcast<vec4<u32>>(words);
  let lowWithheld = (bits & vec4<u32>(0x7c00u)) == vec4<u32>(0x7c00u);
  let highWithheld = (bits & vec4<u32>(0x7c000000u)) == vec4<u32>(0x7c000000u);
  if (any(lowWithheld) || any(highWithheld)) {
    atomicStore(&anyWithheld[0], 1u);
  }
  let low = select(bits & vec4<u32>(0xffffu), vec4<u32>(0u), lowWithheld);
  return bitcast<vec4<i32>>(low | select(bits & vec4<u32>(0xffff0000u), vec4<u32>(0u), highWithheld));
}
fn readValue(row : i32, vector : i32) -> vec4<f32> {
  let words = bitcast<vec4<u32>>(key[uniforms.firstValue + row * 8 + vector / 2]);
  let pairs = select(words.xy, words.zw, vector % 2 == 1);
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}
var<workgroup> scoreRows : array<f32, 1280>;
var<workgroup> weightRows : array<f16, 1536>;
var<workgroup> anyRescale : array<atomic<u32>, 4>;

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let subgroup = local / 32;
  let lane = local % 32;
  // This invocation's row in the workgroup's tile, shared with its neighbour.
  let row = subgroup * 16 + lane / 2;
  let half = lane % 2;
  let firstColumn = 4 * half;
  if (local == 0) {
    atomicStore(&anyRescale[0], 0u);
  }
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
  windowStart = firstKeyTile(queryTileIndex) * tileKeys;
  let allTiles = select(0, max(0, countKeyTiles(head, endRow) - firstKeyTile(queryTileIndex)), firstRow < endRow);
  if (local == 0) {
    keyTileCount.x = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;
  let seenByAll = firstRow;
  let firstSeenByAll = uniforms.firstPosition + endRow - uniforms.window;

  // Rows past the last one of a head are rows of others, which nobody writes.
  let firstTileRow = u32(subgroup * 16);
  let firstQuery = u32(head * uniforms.queryLength + max(firstRow, 0)) + firstTileRow;
  let query0_0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&query, (firstQuery + 0u) * 64u + 0u, 64u);
    let query0_1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&query, (firstQuery + 0u) * 64u + 16u, 64u);
    let query0_2 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&query, (firstQuery + 0u) * 64u + 32u, 64u);
    let query0_3 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&query, (firstQuery + 0u) * 64u + 48u, 64u);

  var keyWords : array<vec4<i32>, 1>;
  var valueWords : array<vec4<i32>, 1>;
  var keyPlaces : array<i32, 1>;
  var nextkeyPlaces : array<i32, 1>;
  var nextTile = keySlots(head, queryTileIndex, max(keyTiles - 1 - (0), 0), keyTiles);
  keyPlaces[0] = nextTile.x + (local + 0) / 8;
  keyWords[0] = key[uniforms.firstKey + (firstKeyRow + min(keyPlaces[0], lastPosition)) * 8 + (local + 0) % 8];
  valueWords[0] = key[uniforms.firstValue + (firstKeyRow + min(keyPlaces[0], lastPosition)) * 8 + (local + 0) % 8];
  nextTile = keySlots(head, queryTileIndex, max(keyTiles - 1 - (1), 0), keyTiles);
  nextkeyPlaces[0] = nextTile.x + (local + 0) / 8;

  var rowMax = lowest;
  var rowSum = 0.0;
  var output0_0 = subgroup_matrix_result<f32, 16, 16>();
    var output0_1 = subgroup_matrix_result<f32, 16, 16>();
    var output0_2 = subgroup_matrix_result<f32, 16, 16>();
    var output0_3 = subgroup_matrix_result<f32, 16, 16>();

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next ones on their way, and the positions of those behind them.
    if ((keyPlaces[0] > seenByAll || keyPlaces[0] < firstSeenByAll)) { valueWords[0] = withholdWords(valueWords[0]); }
    {
      let at = 0 + (local + 0) / 8 * 72 + (local + 0) % 8 * 8;
      let words = keyWords[0];
      let a = bitcast<vec4<f16>>(words.xy);
      let b = bitcast<vec4<f16>>(words.zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
      
    }
    {
      let at = 1152 + (local + 0) / 8 * 72 + (local + 0) % 8 * 8;
      let words = valueWords[0];
      let a = bitcast<vec4<f16>>(words.xy);
      let b = bitcast<vec4<f16>>(words.zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
      
    }
    keyPlaces[0] = nextkeyPlaces[0];
    keyWords[0] = key[uniforms.firstKey + (firstKeyRow + min(keyPlaces[0], lastPosition)) * 8 + (local + 0) % 8];
    valueWords[0] = key[uniforms.firstValue + (firstKeyRow + min(keyPlaces[0], lastPosition)) * 8 + (local + 0) % 8];
    nextTile = keySlots(head, queryTileIndex, max(keyTiles - 1 - (t + 2), 0), keyTiles);
    nextkeyPlaces[0] = nextTile.x + (local + 0) / 8;
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    var scores0_0 = subgroup_matrix_result<f32, 16, 16>();
    {
        let keys = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 0u, 72u);
        scores0_0 = subgroupMatrixMultiplyAccumulate(query0_0, keys, scores0_0);
      }
    {
        let keys = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 16u, 72u);
        scores0_0 = subgroupMatrixMultiplyAccumulate(query0_1, keys, scores0_0);
      }
    {
        let keys = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 32u, 72u);
        scores0_0 = subgroupMatrixMultiplyAccumulate(query0_2, keys, scores0_0);
      }
    {
        let keys = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 48u, 72u);
        scores0_0 = subgroupMatrixMultiplyAccumulate(query0_3, keys, scores0_0);
      }
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u + 0u, scores0_0, 20u);
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();

    // 3. Weights.
    let firstKey = windowStart + max(keyTiles - 1 - (t), 0) * tileKeys;
    let lastVisible = firstRow + row;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row;
      let firstVisible = uniforms.firstPosition + firstRow + row - uniforms.window + 1;
    var x : array<vec4<f32>, 2>;
    var newMax = masked;
    if (firstKey + tileKeys - 1 <= firstRow && firstKey >= uniforms.firstPosition + endRow - uniforms.window) {
      let slopedStart = slope * f32(firstKey + firstColumn - slopedPosition);
      {
      x[0][0] = fma(slope, 0.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 0]);
    x[0][1] = fma(slope, 1.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 1]);
    x[0][2] = fma(slope, 2.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 2]);
    x[0][3] = fma(slope, 3.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 3]);
      newMax = max(newMax, max(max(x[0].x, x[0].y), max(x[0].z, x[0].w)));
    }
    {
      x[1][0] = fma(slope, 8.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 8]);
    x[1][1] = fma(slope, 9.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 9]);
    x[1][2] = fma(slope, 10.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 10]);
    x[1][3] = fma(slope, 11.0, slopedStart) + cappedScore(scoreRows[row * 20 + firstColumn + 11]);
      newMax = max(newMax, max(max(x[1].x, x[1].y), max(x[1].z, x[1].w)));
    }} else {{
      x[0][0] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 0]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 0))), masked, (firstKey + firstColumn + 0) < firstVisible), masked, (firstKey + firstColumn + 0) > lastVisible);
    x[0][1] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 1]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 1))), masked, (firstKey + firstColumn + 1) < firstVisible), masked, (firstKey + firstColumn + 1) > lastVisible);
    x[0][2] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 2]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 2))), masked, (firstKey + firstColumn + 2) < firstVisible), masked, (firstKey + firstColumn + 2) > lastVisible);
    x[0][3] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 3]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 3))), masked, (firstKey + firstColumn + 3) < firstVisible), masked, (firstKey + firstColumn + 3) > lastVisible);
      newMax = max(newMax, max(max(x[0].x, x[0].y), max(x[0].z, x[0].w)));
    }
    {
      x[1][0] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 8]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 8))), masked, (firstKey + firstColumn + 8) < firstVisible), masked, (firstKey + firstColumn + 8) > lastVisible);
    x[1][1] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 9]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 9))), masked, (firstKey + firstColumn + 9) < firstVisible), masked, (firstKey + firstColumn + 9) > lastVisible);
    x[1][2] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 10]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 10))), masked, (firstKey + firstColumn + 10) < firstVisible), masked, (firstKey + firstColumn + 10) > lastVisible);
    x[1][3] = select(select(cappedScore(scoreRows[row * 20 + firstColumn + 11]) - slope * f32(slopedPosition - ((firstKey + firstColumn + 11))), masked, (firstKey + firstColumn + 11) < firstVisible), masked, (firstKey + firstColumn + 11) > lastVisible);
      newMax = max(newMax, max(max(x[1].x, x[1].y), max(x[1].z, x[1].w)));
    }}
    newMax = max(newMax, subgroupShuffleXor(newMax, 1u));
    var rescale = 1.0;
    if (newMax > rowMax + 8.0) {
      // What a row that saw nothing so far has summed is zero.
      if (rowMax > lowest) {
        atomicStore(&anyRescale[0], 1u);
      }
      rescale = exp2(rowMax - newMax);
      rowSum *= rescale;
      rowMax = newMax;
    }
    {
      let weights = exp2(x[0] - rowMax);
      weightRows[row * 24 + firstColumn + 0] = f16(weights[0]);
    weightRows[row * 24 + firstColumn + 1] = f16(weights[1]);
    weightRows[row * 24 + firstColumn + 2] = f16(weights[2]);
    weightRows[row * 24 + firstColumn + 3] = f16(weights[3]);
      rowSum += (weights.x + weights.y) + (weights.z + weights.w);
    }
    {
      let weights = exp2(x[1] - rowMax);
      weightRows[row * 24 + firstColumn + 8] = f16(weights[0]);
    weightRows[row * 24 + firstColumn + 9] = f16(weights[1]);
    weightRows[row * 24 + firstColumn + 10] = f16(weights[2]);
    weightRows[row * 24 + firstColumn + 11] = f16(weights[3]);
      rowSum += (weights.x + weights.y) + (weights.z + weights.w);
    }
    // Barriers, of the load: weights are read as matrices; and whether any row rises must be known to all alike.
    if (workgroupUniformLoad(&anyRescale[0]) != 0u) {
      subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_0, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 16; i += 2) {
        scoreRows[row * 20 + i] *= rescale;
      }
      workgroupBarrier();
      output0_0 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, (firstTileRow + 0u) * 20u, 20u);
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_1, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 16; i += 2) {
        scoreRows[row * 20 + i] *= rescale;
      }
      workgroupBarrier();
      output0_1 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, (firstTileRow + 0u) * 20u, 20u);
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_2, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 16; i += 2) {
        scoreRows[row * 20 + i] *= rescale;
      }
      workgroupBarrier();
      output0_2 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, (firstTileRow + 0u) * 20u, 20u);
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_3, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 16; i += 2) {
        scoreRows[row * 20 + i] *= rescale;
      }
      workgroupBarrier();
      output0_3 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, (firstTileRow + 0u) * 20u, 20u);
      workgroupBarrier();
      atomicStore(&anyRescale[0], 0u);
    }

    // 4. Weighted sum of values.
    let weights0_0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&weightRows, (firstTileRow + 0u) * 24u + 0u, 24u);
    {
        let values = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 1152u, 72u);
        output0_0 = subgroupMatrixMultiplyAccumulate(weights0_0, values, output0_0);
      }
    {
        let values = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 1168u, 72u);
        output0_1 = subgroupMatrixMultiplyAccumulate(weights0_0, values, output0_1);
      }
    {
        let values = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 1184u, 72u);
        output0_2 = subgroupMatrixMultiplyAccumulate(weights0_0, values, output0_2);
      }
    {
        let values = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 1200u, 72u);
        output0_3 = subgroupMatrixMultiplyAccumulate(weights0_0, values, output0_3);
      }
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The output, by way of workgroup memory.
  let total = rowSum + subgroupShuffleXor(rowSum, 1u);
  let totalWithSink = total + exp2(min(f32(headForms[head].z) - rowMax, f32(126.0)));
  subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_0, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 4; i += 2) {
    let vector = 0 + i;
    if (firstRow + row < endRow && vector < 16) {
      let at = row * 20 + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if ((position > seenByAll || position < firstSeenByAll) && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = firstRow + row;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row;
      let firstVisible = uniforms.firstPosition + firstRow + row - uniforms.window + 1;
        if (!(select(select(cappedScore(0.0) - slope * f32(slopedPosition - (position)), masked, position < firstVisible), masked, position > lastVisible) == masked)) { x += withheld0; }
      }
        }
      }
    }
  }
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / totalWithSink, vec4<f32>(0.0), total == 0.0));
    }
  }
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_1, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 4; i += 2) {
    let vector = 4 + i;
    if (firstRow + row < endRow && vector < 16) {
      let at = row * 20 + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if ((position > seenByAll || position < firstSeenByAll) && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = firstRow + row;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row;
      let firstVisible = uniforms.firstPosition + firstRow + row - uniforms.window + 1;
        if (!(select(select(cappedScore(0.0) - slope * f32(slopedPosition - (position)), masked, position < firstVisible), masked, position > lastVisible) == masked)) { x += withheld0; }
      }
        }
      }
    }
  }
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / totalWithSink, vec4<f32>(0.0), total == 0.0));
    }
  }
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_2, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 4; i += 2) {
    let vector = 8 + i;
    if (firstRow + row < endRow && vector < 16) {
      let at = row * 20 + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if ((position > seenByAll || position < firstSeenByAll) && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = firstRow + row;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row;
      let firstVisible = uniforms.firstPosition + firstRow + row - uniforms.window + 1;
        if (!(select(select(cappedScore(0.0) - slope * f32(slopedPosition - (position)), masked, position < firstVisible), masked, position > lastVisible) == masked)) { x += withheld0; }
      }
        }
      }
    }
  }
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / totalWithSink, vec4<f32>(0.0), total == 0.0));
    }
  }
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, (firstTileRow + 0u) * 20u, output0_3, 20u);
      // Barriers: rows are read by other invocations than those that stored them, and what follows replaces them.
      workgroupBarrier();
      for (var i = half; i < 4; i += 2) {
    let vector = 12 + i;
    if (firstRow + row < endRow && vector < 16) {
      let at = row * 20 + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if ((position > seenByAll || position < firstSeenByAll) && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = firstRow + row;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row;
      let firstVisible = uniforms.firstPosition + firstRow + row - uniforms.window + 1;
        if (!(select(select(cappedScore(0.0) - slope * f32(slopedPosition - (position)), masked, position < firstVisible), masked, position > lastVisible) == masked)) { x += withheld0; }
      }
        }
      }
    }
  }
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / totalWithSink, vec4<f32>(0.0), total == 0.0));
    }
  }
      workgroupBarrier();
}
