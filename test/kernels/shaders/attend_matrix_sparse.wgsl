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
var<workgroup> tiles : array<f16, 4608>;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
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
// Barriers of the walk need a number that all invocations are known to share.
var<workgroup> keyTileCount : i32;

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
  return (head * uniforms.blockListsShape.z + block) * uniforms.blockListsShape.w;
}

fn countListed(head : i32, tile : i32) -> i32 {
  return blockLists[listStart(head, tile)] * tilesIn(uniforms.keyBlockSize, tileKeys);
}

// The t-th tile that the owner of a tile walks over.
fn listedTile(head : i32, tile : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.keyBlockSize, tileKeys);
  let block = blockLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  return tileOfBlock(block, t % tilesPerBlock, uniforms.keyBlockSize, tileKeys, uniforms.keyLength);
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyLength + slot];
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
  let allTiles = select(0, countListed(head, queryTileIndex), firstRow < endRow);
  if (local == 0) {
    keyTileCount = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount);
  let seenByAll = firstRow;

  // Queries, by way of workgroup memory, into registers.
  for (var i = local; i < tileQueries * 16; i += threads) {
    let queryRow = firstRow + i / 16;
    var x = vec4<f32>(0.0);
    if (queryRow < endRow && i % 16 < 16) {
      x = uniforms.logitScale * readQuery(head * uniforms.queryLength + queryRow, i % 16);
    }
    storeTile((i / 16) * 72 + (i % 16) * 4, vec4<f16>(x));
  }
  // Barrier: a subgroup reads rows that others loaded.
  workgroupBarrier();
  let firstTileRow = u32(subgroup * 16);
  let query0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, firstTileRow * 72u + 0u, 72u);
    let query1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, firstTileRow * 72u + 16u, 72u);
    let query2 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, firstTileRow * 72u + 32u, 72u);
    let query3 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, firstTileRow * 72u + 48u, 72u);
  // Barrier: keys replace the queries.
  workgroupBarrier();

  let load0 = local + 0 * threads;
    let vector0 = min(load0 % 16, 15);
    let load1 = local + 1 * threads;
    let vector1 = min(load1 % 16, 15);
    let load2 = local + 2 * threads;
    let vector2 = min(load2 % 16, 15);
    let load3 = local + 3 * threads;
    let vector3 = min(load3 % 16, 15);
  var nextPositions : array<i32, 4>;
  var keys : array<vec4<f16>, 4>;
  var values : array<vec4<f16>, 4>;
  var positions : array<i32, 4>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  positions[0] = positionIn(head, nextTile, load0 / 16);
    positions[1] = positionIn(head, nextTile, load1 / 16);
    positions[2] = positionIn(head, nextTile, load2 / 16);
    positions[3] = positionIn(head, nextTile, load3 / 16);
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  keys[0] = vec4<f16>(readKey(firstKeyRow + min(positions[0], lastPosition), vector0));
    keys[1] = vec4<f16>(readKey(firstKeyRow + min(positions[1], lastPosition), vector1));
    keys[2] = vec4<f16>(readKey(firstKeyRow + min(positions[2], lastPosition), vector2));
    keys[3] = vec4<f16>(readKey(firstKeyRow + min(positions[3], lastPosition), vector3));
  values[0] = vec4<f16>(readValue(firstKeyRow + min(positions[0], lastPosition), vector0));
    values[1] = vec4<f16>(readValue(firstKeyRow + min(positions[1], lastPosition), vector1));
    values[2] = vec4<f16>(readValue(firstKeyRow + min(positions[2], lastPosition), vector2));
    values[3] = vec4<f16>(readValue(firstKeyRow + min(positions[3], lastPosition), vector3));

  var rowMax = masked;
  var rowSum = 0.0;
  var output0 = subgroup_matrix_result<f32, 16, 16>();
    var output1 = subgroup_matrix_result<f32, 16, 16>();
    var output2 = subgroup_matrix_result<f32, 16, 16>();
    var output3 = subgroup_matrix_result<f32, 16, 16>();

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys and values into workgroup memory; the next positions on their way.
    if (positions[0] > seenByAll && positions[0] != paddingPosition) { values[0] = vec4<f16>(withhold(vec4<f32>(values[0]))); }
    if (positions[1] > seenByAll && positions[1] != paddingPosition) { values[1] = vec4<f16>(withhold(vec4<f32>(values[1]))); }
    if (positions[2] > seenByAll && positions[2] != paddingPosition) { values[2] = vec4<f16>(withhold(vec4<f32>(values[2]))); }
    if (positions[3] > seenByAll && positions[3] != paddingPosition) { values[3] = vec4<f16>(withhold(vec4<f32>(values[3]))); }
    {
      let at = (load0 / 16) * 72 + (load0 % 16) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = positions[0] != paddingPosition && load0 % 16 < 16;
      storeTile(at, select(vec4<f16>(0.0), keys[0], exists));
      storeTile(at + tileKeys * 72, select(vec4<f16>(0.0), values[0], exists));
      if (load0 % 16 == 0) {
        keyPositions[load0 / 16] = positions[0];
      }
    }
    {
      let at = (load1 / 16) * 72 + (load1 % 16) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = positions[1] != paddingPosition && load1 % 16 < 16;
      storeTile(at, select(vec4<f16>(0.0), keys[1], exists));
      storeTile(at + tileKeys * 72, select(vec4<f16>(0.0), values[1], exists));
      if (load1 % 16 == 0) {
        keyPositions[load1 / 16] = positions[1];
      }
    }
    {
      let at = (load2 / 16) * 72 + (load2 % 16) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = positions[2] != paddingPosition && load2 % 16 < 16;
      storeTile(at, select(vec4<f16>(0.0), keys[2], exists));
      storeTile(at + tileKeys * 72, select(vec4<f16>(0.0), values[2], exists));
      if (load2 % 16 == 0) {
        keyPositions[load2 / 16] = positions[2];
      }
    }
    {
      let at = (load3 / 16) * 72 + (load3 % 16) * 4;
      // Padding has no weight and no column, but zero times a NaN is a NaN (more: withheld_values.ts).
      let exists = positions[3] != paddingPosition && load3 % 16 < 16;
      storeTile(at, select(vec4<f16>(0.0), keys[3], exists));
      storeTile(at + tileKeys * 72, select(vec4<f16>(0.0), values[3], exists));
      if (load3 % 16 == 0) {
        keyPositions[load3 / 16] = positions[3];
      }
    }
    nextPositions[0] = positionIn(head, nextTile, load0 / 16);
    nextPositions[1] = positionIn(head, nextTile, load1 / 16);
    nextPositions[2] = positionIn(head, nextTile, load2 / 16);
    nextPositions[3] = positionIn(head, nextTile, load3 / 16);
    // Barrier: all subgroups read all keys and values.
    workgroupBarrier();

    // 2. Scores.
    {
      var scores = subgroup_matrix_result<f32, 16, 16>();
      scores = subgroupMatrixMultiplyAccumulate(query0, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 0u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query1, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 16u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query2, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 32u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query3, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 48u, 72u), scores);
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, scores, 36u);
    }
    {
      var scores = subgroup_matrix_result<f32, 16, 16>();
      scores = subgroupMatrixMultiplyAccumulate(query0, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 1152u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query1, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 1168u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query2, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 1184u, 72u), scores);
    scores = subgroupMatrixMultiplyAccumulate(query3, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, 1200u, 72u), scores);
      subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, scores, 36u);
    }
    // Barrier: rows of scores are read by other invocations than those that stored them.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    positions[0] = nextPositions[0];
    keys[0] = vec4<f16>(readKey(firstKeyRow + min(positions[0], lastPosition), vector0));
    values[0] = vec4<f16>(readValue(firstKeyRow + min(positions[0], lastPosition), vector0));
    positions[1] = nextPositions[1];
    keys[1] = vec4<f16>(readKey(firstKeyRow + min(positions[1], lastPosition), vector1));
    values[1] = vec4<f16>(readValue(firstKeyRow + min(positions[1], lastPosition), vector1));
    positions[2] = nextPositions[2];
    keys[2] = vec4<f16>(readKey(firstKeyRow + min(positions[2], lastPosition), vector2));
    values[2] = vec4<f16>(readValue(firstKeyRow + min(positions[2], lastPosition), vector2));
    positions[3] = nextPositions[3];
    keys[3] = vec4<f16>(readKey(firstKeyRow + min(positions[3], lastPosition), vector3));
    values[3] = vec4<f16>(readValue(firstKeyRow + min(positions[3], lastPosition), vector3));

    // 3. Weights.
    let lastVisible = firstRow + row;
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
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, output1, 36u);
      workgroupBarrier();
      for (var i = half; i < 32; i += 2) {
        scoreRows[row * 36 + i] *= rescales[row];
      }
      workgroupBarrier();
      output0 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, firstTileRow * 36u + 0u, 36u);
    output1 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, firstTileRow * 36u + 16u, 36u);
      workgroupBarrier();
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, output2, 36u);
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, output3, 36u);
      workgroupBarrier();
      for (var i = half; i < 32; i += 2) {
        scoreRows[row * 36 + i] *= rescales[row];
      }
      workgroupBarrier();
      output2 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, firstTileRow * 36u + 0u, 36u);
    output3 = subgroupMatrixLoad<subgroup_matrix_result<f32, 16, 16>, row_major>(&scoreRows, firstTileRow * 36u + 16u, 36u);
      workgroupBarrier();
      atomicStore(&anyRescale, 0u);
    }

    // 4. Weighted sum of values.
    {
      let weights = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&weightRows, firstTileRow * 40u + 0u, 40u);
      output0 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 2304u, 72u), output0);
    output1 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 2320u, 72u), output1);
    output2 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 2336u, 72u), output2);
    output3 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 2352u, 72u), output3);
    }
    {
      let weights = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&weightRows, firstTileRow * 40u + 16u, 40u);
      output0 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 3456u, 72u), output0);
    output1 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 3472u, 72u), output1);
    output2 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 3488u, 72u), output2);
    output3 = subgroupMatrixMultiplyAccumulate(weights, subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, row_major>(&tiles, 3504u, 72u), output3);
    }
    // Barrier: the next round overwrites keys, values and weights.
    workgroupBarrier();
  }

  // 5. The sums of both halves, and the output, by way of workgroup memory.
  let total = rowSum + subgroupShuffleXor(rowSum, 1u);
  subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, output0, 36u);
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, output1, 36u);
  workgroupBarrier();
  for (var i = half; i < 8; i += 2) {
    let vector = 0 + i;
    if (firstRow + row < endRow && vector < 16) {
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
        let lastVisible = firstRow + row;
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
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 0u, output2, 36u);
    subgroupMatrixStore<row_major>(&scoreRows, firstTileRow * 36u + 16u, output3, 36u);
  workgroupBarrier();
  for (var i = half; i < 8; i += 2) {
    let vector = 8 + i;
    if (firstRow + row < endRow && vector < 16) {
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
        let lastVisible = firstRow + row;
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
