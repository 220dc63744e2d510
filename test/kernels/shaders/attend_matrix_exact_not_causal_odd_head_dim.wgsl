// A workgroup computes the output of 64 query rows of one head; each of its 4 subgroups owns 16 of them. It walks
// over tiles of 32 keys with an online softmax, whose products run on matrix units: float16 in, float32 sums.
//
// Who holds an element of a matrix in registers is not known, so everything that is done by row passes through workgroup
// memory: scores go out, two neighbouring invocations turn a row of them into weights, and the weights come back as a
// matrix. The output matrices stay in registers, relative to a maximum that follows the row's true one with some
// headroom; only when that is used up do they go out to be scaled.
//
// Workgroup memory: tiles holds keys, then values (before the first round: the queries), float16; scores and weights have
// a part for each subgroup. Keys and values of the next tile are read from global memory while this one is computed.
const threads = 128;
const tileQueries = 64;
const tileKeys = 32;
var<workgroup> tiles : array<f16, 1536>;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, query[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, query[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, query[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, query[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, key[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, key[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, key[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, key[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, value[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, value[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, value[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, value[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn writeOutput(row : i32, vector : i32, x : vec4<f32>) {
  for (var i = 0; i < min(4, 10 - 4 * vector); i++) {
    result[row * 10 + 4 * vector + i] = x[i];
  }
}

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
// Barriers of the walk need a number that all invocations are known to share.
var<workgroup> keyTileCount : i32;

fn keyEnd(head : i32) -> i32 {
  return uniforms.keyLength;
}

fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryLength));
}

fn countKeyTiles(head : i32, endRow : i32) -> i32 {
  return (uniforms.keyLength + tileKeys - 1) / tileKeys;
}

fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  return vec2<i32>(t * tileKeys, min((t + 1) * tileKeys, uniforms.keyLength));
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

var<workgroup> anyWithheld : atomic<u32>;

fn asStored(x : vec4<f32>) -> vec4<f32> {
  return vec4<f32>(vec4<f16>(x));
}

fn withhold(x : vec4<f32>) -> vec4<f32> {
  let isWithheld = notFinite(asStored(x));
  if (any(isWithheld)) {
    atomicStore(&anyWithheld, 1u);
  }
  return select(x, vec4<f32>(0.0), isWithheld);
}

fn withheldOf(x : vec4<f32>) -> vec4<f32> {
  return select(vec4<f32>(0.0), asStored(x), notFinite(asStored(x)));
}

var<workgroup> scoreRows : array<f32, 2304>;
var<workgroup> weightRows : array<f16, 2560>;
var<workgroup> keyPositions : array<i32, tileKeys>;
var<workgroup> rescales : array<f32, tileQueries>;
var<workgroup> anyRescale : atomic<u32>;

fn storeTile(at : i32, x : vec4<f16>) {
  tiles[at] = x.x;
  tiles[at + 1] = x.y;
  tiles[at + 2] = x.z;
  tiles[at + 3] = x.w;
}

fn main(index : i32) {
  let local = i32(localIndex);
  let subgroup = local / 32;
  let lane = local % 32;
  // This invocation's row in the workgroup's tile, shared with its neighbour.
  let row = subgroup * 16 + lane / 2;
  let half = lane % 2;
  if (local == 0) {
    atomicStore(&anyRescale, 0u);
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
  let allTiles = select(0, countKeyTiles(head, endRow), firstRow < endRow);
  if (local == 0) {
    keyTileCount = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);
  let seenByAll = paddingPosition - 1;

  // Queries, by way of workgroup memory, into registers.
  for (var i = local; i < tileQueries * 4; i += threads) {
    let queryRow = firstRow + i / 4;
    var x = vec4<f32>(0.0);
    if (queryRow < endRow && i % 4 < 3) {
      x = uniforms.logitScale * readQuery(head * uniforms.queryLength + queryRow, i % 4);
    }
    storeTile((i / 4) * 24 + (i % 4) * 4, vec4<f16>(x));
  }
  // Barrier: a subgroup reads rows that others loaded.
  workgroupBarrier();
  let firstTileRow = u32(subgroup * 16);
  let query0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, firstTileRow * 24u + 0u, 24u);
  // Barrier: keys replace the queries.
  workgroupBarrier();

  let load0 = local + 0 * threads;
    let vector0 = min(load0 % 4, 2);
  var nextPositions : array<i32, 1>;
  var keys : array<vec4<f16>, 1>;
  var values : array<vec4<f16>, 1>;
  var positions : array<i32, 1>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  positions[0] = positionIn(head, nextTile, load0 / 4);
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  keys[0] = vec4<f16>(readKey(firstKeyRow + min(positions[0], lastPosition), vector0));
  values[0] = vec4<f16>(readValue(firstKeyRow + min(positions[0], lastPosition), vector0));

  var rowMax = masked;
  var rowSum = 0.0;
  var output0 = subgroup_matrix_result<f32, 16, 16>();

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next positions on their way.
    if (positions[0] > seenByAll && positions[0] != paddingPosition) { values[0] = vec4<f16>(withhold(vec4<f32>(values[0]))); }
    {
      let at = (load0 / 4) * 24 + (load0 % 4) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = positions[0] != paddingPosition && load0 % 4 < 3;
      storeTile(at, select(vec4<f16>(0.0), keys[0], exists));
      storeTile(at + tileKeys * 24, select(vec4<f16>(0.0), values[0], exists));
      if (load0 % 4 == 0) {
        keyPositions[load0 / 4] = positions[0];
      }
    }
    nextPositions[0] = positionIn(head, nextTile, load0 / 4);
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    {
      var scores = subgroup_matrix_result<f32, 16, 16>();
      scores = subgroupMatrixMultiplyAccumulate(query0, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 0u, 24u), scores);
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, scores, 36u);
    }
    {
      var scores = subgroup_matrix_result<f32, 16, 16>();
      scores = subgroupMatrixMultiplyAccumulate(query0, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 384u, 24u), scores);
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, scores, 36u);
    }
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    positions[0] = nextPositions[0];
    keys[0] = vec4<f16>(readKey(firstKeyRow + min(positions[0], lastPosition), vector0));
    values[0] = vec4<f16>(readValue(firstKeyRow + min(positions[0], lastPosition), vector0));

    // 3. Weights.
    let lastVisible = paddingPosition - 1;
    var x : array<vec4<f32>, 4>;
    var newMax = masked;
    {{
      let column = 4 * (half + 0);
      x[0][0] = select(scoreRows[row * 36 + column + 0], masked, keyPositions[column + 0] > lastVisible);
    x[0][1] = select(scoreRows[row * 36 + column + 1], masked, keyPositions[column + 1] > lastVisible);
    x[0][2] = select(scoreRows[row * 36 + column + 2], masked, keyPositions[column + 2] > lastVisible);
    x[0][3] = select(scoreRows[row * 36 + column + 3], masked, keyPositions[column + 3] > lastVisible);
      newMax = max(newMax, max(max(x[0].x, x[0].y), max(x[0].z, x[0].w)));
    }
    {
      let column = 4 * (half + 2);
      x[1][0] = select(scoreRows[row * 36 + column + 0], masked, keyPositions[column + 0] > lastVisible);
    x[1][1] = select(scoreRows[row * 36 + column + 1], masked, keyPositions[column + 1] > lastVisible);
    x[1][2] = select(scoreRows[row * 36 + column + 2], masked, keyPositions[column + 2] > lastVisible);
    x[1][3] = select(scoreRows[row * 36 + column + 3], masked, keyPositions[column + 3] > lastVisible);
      newMax = max(newMax, max(max(x[1].x, x[1].y), max(x[1].z, x[1].w)));
    }
    {
      let column = 4 * (half + 4);
      x[2][0] = select(scoreRows[row * 36 + column + 0], masked, keyPositions[column + 0] > lastVisible);
    x[2][1] = select(scoreRows[row * 36 + column + 1], masked, keyPositions[column + 1] > lastVisible);
    x[2][2] = select(scoreRows[row * 36 + column + 2], masked, keyPositions[column + 2] > lastVisible);
    x[2][3] = select(scoreRows[row * 36 + column + 3], masked, keyPositions[column + 3] > lastVisible);
      newMax = max(newMax, max(max(x[2].x, x[2].y), max(x[2].z, x[2].w)));
    }
    {
      let column = 4 * (half + 6);
      x[3][0] = select(scoreRows[row * 36 + column + 0], masked, keyPositions[column + 0] > lastVisible);
    x[3][1] = select(scoreRows[row * 36 + column + 1], masked, keyPositions[column + 1] > lastVisible);
    x[3][2] = select(scoreRows[row * 36 + column + 2], masked, keyPositions[column + 2] > lastVisible);
    x[3][3] = select(scoreRows[row * 36 + column + 3], masked, keyPositions[column + 3] > lastVisible);
      newMax = max(newMax, max(max(x[3].x, x[3].y), max(x[3].z, x[3].w)));
    }}
    newMax = max(newMax, subgroupShuffleXor(newMax, 1u));
    let rises = newMax > rowMax + 8.0;
    let rescale = select(1.0, exp2(rowMax - newMax), rises);
    rowMax = select(rowMax, newMax, rises);
    rowSum *= rescale;
    if (half == 0) {
      rescales[row] = rescale;
    }
    if (rises) {
      atomicStore(&anyRescale, 1u);
    }
    {
      let column = 4 * (half + 0);
      {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[0][0] - rowMax), 0.0, x[0][0] == masked);
        weightRows[row * 40 + column + 0] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[0][1] - rowMax), 0.0, x[0][1] == masked);
        weightRows[row * 40 + column + 1] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[0][2] - rowMax), 0.0, x[0][2] == masked);
        weightRows[row * 40 + column + 2] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[0][3] - rowMax), 0.0, x[0][3] == masked);
        weightRows[row * 40 + column + 3] = f16(weight);
        rowSum += weight;
      }
    }
    {
      let column = 4 * (half + 2);
      {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[1][0] - rowMax), 0.0, x[1][0] == masked);
        weightRows[row * 40 + column + 0] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[1][1] - rowMax), 0.0, x[1][1] == masked);
        weightRows[row * 40 + column + 1] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[1][2] - rowMax), 0.0, x[1][2] == masked);
        weightRows[row * 40 + column + 2] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[1][3] - rowMax), 0.0, x[1][3] == masked);
        weightRows[row * 40 + column + 3] = f16(weight);
        rowSum += weight;
      }
    }
    {
      let column = 4 * (half + 4);
      {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[2][0] - rowMax), 0.0, x[2][0] == masked);
        weightRows[row * 40 + column + 0] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[2][1] - rowMax), 0.0, x[2][1] == masked);
        weightRows[row * 40 + column + 1] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[2][2] - rowMax), 0.0, x[2][2] == masked);
        weightRows[row * 40 + column + 2] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[2][3] - rowMax), 0.0, x[2][3] == masked);
        weightRows[row * 40 + column + 3] = f16(weight);
        rowSum += weight;
      }
    }
    {
      let column = 4 * (half + 6);
      {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[3][0] - rowMax), 0.0, x[3][0] == masked);
        weightRows[row * 40 + column + 0] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[3][1] - rowMax), 0.0, x[3][1] == masked);
        weightRows[row * 40 + column + 1] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[3][2] - rowMax), 0.0, x[3][2] == masked);
        weightRows[row * 40 + column + 2] = f16(weight);
        rowSum += weight;
      }
    {
        // A row that has seen nothing yet has the masked score as its maximum: exp2 would give 1.
        let weight = select(exp2(x[3][3] - rowMax), 0.0, x[3][3] == masked);
        weightRows[row * 40 + column + 3] = f16(weight);
        rowSum += weight;
      }
    }
    // Barrier: weights are read as matrices; and whether any row rises must be known to all alike.
    workgroupBarrier();
    if (workgroupUniformLoad(&anyRescale) != 0u) {
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, output0, 36u);
      workgroupBarrier();
      for (var i = half; i < 16; i += 2) {
        scoreRows[row * 36 + i] *= rescales[row];
      }
      workgroupBarrier();
      output0 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, firstTileRow * 36u + 0u, 36u);
      workgroupBarrier();
      atomicStore(&anyRescale, 0u);
    }

    // 4. Weighted sum of values.
    {
      let weights = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&weightRows, firstTileRow * 40u + 0u, 40u);
      output0 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 768u, 24u), output0);
    }
    {
      let weights = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&weightRows, firstTileRow * 40u + 16u, 40u);
      output0 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 1152u, 24u), output0);
    }
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The sums of both halves, and the output, by way of workgroup memory.
  let total = rowSum + subgroupShuffleXor(rowSum, 1u);
  subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, output0, 36u);
  workgroupBarrier();
  for (var i = half; i < 4; i += 2) {
    let vector = 0 + i;
    if (firstRow + row < endRow && vector < 3) {
      let at = row * 36 + 4 * i;
      var x = vec4<f32>(scoreRows[at], scoreRows[at + 1], scoreRows[at + 2], scoreRows[at + 3]);
      if (atomicLoad(&anyWithheld) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = paddingPosition - 1;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { x += withheld0; }
      }
        }
      }
    }
  }
      // A row that saw nothing is zeros.
      writeOutput(head * uniforms.queryLength + firstRow + row, vector, select(x / total, vec4<f32>(0.0), total == 0.0));
    }
  }
  workgroupBarrier();
}
