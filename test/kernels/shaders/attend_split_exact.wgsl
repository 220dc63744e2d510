// A workgroup takes tileQueries query rows of the heads that read one key head (all rows of its first, then
// of its second, …) and one of
// several chunks of the keys, evenly cut by tiles. It writes states of the softmax (see softmax_state.ts). It walks over tiles of tileKeys keys and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the words x + o * threadsX, the row's maximum (the same in all x), and the sum of the weights
// of its own columns alone, added up over x once at the end.
//
// Workgroup memory, in words of 16 bytes (4 values of float32): queryTile for the whole run; keyTile, first keys, then the
// values of the same keys; keyPositions, their original indices; rowPartials, the maxima (at the end: sums) of the rows
// of a y over the columns of an x; weights, of a row in the columns of an x.
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.

const threads = 64;
const threadsX = 16;
const threadsY = 4;
const rows = 2;
const columns = 2;
const tileQueries = 8;
const tileKeys = 32;
const headWords = 16;
const tileStride = 21;
const weightStride = 17;
var<workgroup> queryTile : array<vec4<f32>, 168>;
var<workgroup> keyTile : array<vec4<f32>, 672>;
var<workgroup> weights : array<vec2<f32>, 136>;
var<workgroup> rowPartials : array<vec2<f32>, 68>;
var<workgroup> keyPositions : array<i32, tileKeys>;


fn writeValues(row : i32, chunk : i32, vector : i32, x : vec4<f32>) {
  result[(row * uniforms.outShape.y + chunk) * 21 + vector] = x;
}
fn writeSums(row : i32, chunk : i32, maximum : f32, sum : f32) {
  result[(row * uniforms.outShape.y + chunk) * 21 + 20] = vec4<f32>(maximum, sum, 0.0, 0.0);
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
// Barriers of the walk need a number that all invocations are known to share. It takes 16 bytes, so that what a driver puts behind it
// begins at a multiple of them, as matrix units need it.
var<workgroup> keyTileCount : vec4<i32>;

fn keyEnd(head : i32) -> i32 {
  return uniforms.keyLength;
}
// Where the mask of a row starts. Rows past the end read some row that exists.
fn maskRow(head : i32, row : i32) -> i32 {
  let heads = uniforms.heads;
  let last = uniforms.maskShape - 1;
  let entry = min(head / heads, last.x) * uniforms.maskShape.y + min(head % heads, last.y);
  return (entry * uniforms.maskShape.z + min(row, last.z)) * uniforms.maskShape.w;
}

fn maskedScore(score : f32, maskStart : i32, position : i32) -> f32 {
  let x = mask[maskStart + min(position, uniforms.maskShape.w - 1)];
  return select(masked, score, x != 0);
}

fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryLength * (uniforms.heads / uniforms.keyValueHeads)));
}

fn countKeyTiles(head : i32, endRow : i32) -> i32 {
  return (uniforms.queryOffset + uniforms.queryLength + tileKeys - 1) / tileKeys;
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

fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 20 + vector]; }

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 4);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 4);
  let allHeads = uniforms.batch * uniforms.keyValueHeads;
  let head = workgroupIndex() % allHeads * (uniforms.heads / uniforms.keyValueHeads);
  let firstKeyRow = keyRow(head, 0);
  let lastPosition = uniforms.keyLength - 1;
  // Workgroups of one chunk of the keys stand together: they read the same ones.
  let queryTileIndex = (workgroupIndex() / allHeads) % uniforms.queryTiles;
  let chunk = workgroupIndex() / (allHeads * uniforms.queryTiles);
  let exists = chunk < uniforms.outShape.y;
  let span = ownedSpan(queryTileIndex);
  let firstRow = span.x;
  // Workgroups beyond those asked for get no rows.
  let endRow = select(firstRow, span.y, exists);
  let allTiles = select(0, countKeyTiles(head, endRow), firstRow < endRow);
  let chunkTiles = (allTiles + uniforms.outShape.y - 1) / uniforms.outShape.y;
  let firstTile = chunk * chunkTiles;
  if (local == 0) {
    keyTileCount.x = clamp(allTiles - firstTile, 0, chunkTiles);
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;
  let seenByAll = -1;

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec2<f32>(lowest);
  var rowSum = vec2<f32>(0.0);
  var output : array<array<vec4<f32>, 2>, rows>;
  var positions : array<i32, 8>;
  var nextPositions : array<i32, 8>;
  var fetched : array<vec4<f32>, 10>;
  var nextTile = keySlots(head, queryTileIndex, firstTile + 0, firstTile + keyTiles);
  nextPositions[0] = positionIn(head, nextTile, (local / 16));
    nextPositions[1] = positionIn(head, nextTile, ((local + 64) / 16));
    nextPositions[2] = positionIn(head, nextTile, ((local + 128) / 16));
    nextPositions[3] = positionIn(head, nextTile, ((local + 192) / 16));
    nextPositions[4] = positionIn(head, nextTile, ((local + 256) / 16));
    nextPositions[5] = positionIn(head, nextTile, ((local + 320) / 16));
    nextPositions[6] = positionIn(head, nextTile, ((local + 384) / 16));
    nextPositions[7] = positionIn(head, nextTile, ((local + 448) / 16));
  nextTile = keySlots(head, queryTileIndex, firstTile + 1, firstTile + keyTiles);
  fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 16);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), (local + 64) % 16);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), (local + 128) % 16);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), (local + 192) % 16);
    fetched[4] = readKey(firstKeyRow + min(nextPositions[4], lastPosition), (local + 256) % 16);
    fetched[5] = readKey(firstKeyRow + min(nextPositions[5], lastPosition), (local + 320) % 16);
    fetched[6] = readKey(firstKeyRow + min(nextPositions[6], lastPosition), (local + 384) % 16);
    fetched[7] = readKey(firstKeyRow + min(nextPositions[7], lastPosition), (local + 448) % 16);
  {
    var fetched = array<vec4<f32>, 2>();
    if (firstRow + (local / 16) < endRow) { fetched[0] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + (local / 16), local % 16); }
    if (firstRow + ((local + 64) / 16) < endRow) { fetched[1] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ((local + 64) / 16), (local + 64) % 16); }
    {
      queryTile[(local / 16) * tileStride + local % 16] = fetched[0];
    }
    {
      queryTile[((local + 64) / 16) * tileStride + (local + 64) % 16] = fetched[1];
    }
    }

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    positions[0] = nextPositions[0];
    positions[1] = nextPositions[1];
    positions[2] = nextPositions[2];
    positions[3] = nextPositions[3];
    positions[4] = nextPositions[4];
    positions[5] = nextPositions[5];
    positions[6] = nextPositions[6];
    positions[7] = nextPositions[7];
    {
      keyTile[(local / 16) * tileStride + local % 16] = fetched[0]; if (local % 16 == 0) { keyPositions[(local / 16)] = positions[0]; }
    }
    {
      keyTile[((local + 64) / 16) * tileStride + (local + 64) % 16] = fetched[1]; if ((local + 64) % 16 == 0) { keyPositions[((local + 64) / 16)] = positions[1]; }
    }
    {
      keyTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[2]; if ((local + 128) % 16 == 0) { keyPositions[((local + 128) / 16)] = positions[2]; }
    }
    {
      keyTile[((local + 192) / 16) * tileStride + (local + 192) % 16] = fetched[3]; if ((local + 192) % 16 == 0) { keyPositions[((local + 192) / 16)] = positions[3]; }
    }
    {
      keyTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[4]; if ((local + 256) % 16 == 0) { keyPositions[((local + 256) / 16)] = positions[4]; }
    }
    {
      keyTile[((local + 320) / 16) * tileStride + (local + 320) % 16] = fetched[5]; if ((local + 320) % 16 == 0) { keyPositions[((local + 320) / 16)] = positions[5]; }
    }
    {
      keyTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[6]; if ((local + 384) % 16 == 0) { keyPositions[((local + 384) / 16)] = positions[6]; }
    }
    {
      keyTile[((local + 448) / 16) * tileStride + (local + 448) % 16] = fetched[7]; if ((local + 448) % 16 == 0) { keyPositions[((local + 448) / 16)] = positions[7]; }
    }
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    let valuePosition0 = keyPositions[min((local / 20), tileKeys - 1)];
    let valuePosition1 = keyPositions[min(((local + 64) / 20), tileKeys - 1)];
    let valuePosition2 = keyPositions[min(((local + 128) / 20), tileKeys - 1)];
    let valuePosition3 = keyPositions[min(((local + 192) / 20), tileKeys - 1)];
    let valuePosition4 = keyPositions[min(((local + 256) / 20), tileKeys - 1)];
    let valuePosition5 = keyPositions[min(((local + 320) / 20), tileKeys - 1)];
    let valuePosition6 = keyPositions[min(((local + 384) / 20), tileKeys - 1)];
    let valuePosition7 = keyPositions[min(((local + 448) / 20), tileKeys - 1)];
    let valuePosition8 = keyPositions[min(((local + 512) / 20), tileKeys - 1)];
    let valuePosition9 = keyPositions[min(((local + 576) / 20), tileKeys - 1)];
    fetched[0] = readValue(firstKeyRow + min(valuePosition0, lastPosition), local % 20);
    fetched[1] = readValue(firstKeyRow + min(valuePosition1, lastPosition), (local + 64) % 20);
    fetched[2] = readValue(firstKeyRow + min(valuePosition2, lastPosition), (local + 128) % 20);
    fetched[3] = readValue(firstKeyRow + min(valuePosition3, lastPosition), (local + 192) % 20);
    fetched[4] = readValue(firstKeyRow + min(valuePosition4, lastPosition), (local + 256) % 20);
    fetched[5] = readValue(firstKeyRow + min(valuePosition5, lastPosition), (local + 320) % 20);
    fetched[6] = readValue(firstKeyRow + min(valuePosition6, lastPosition), (local + 384) % 20);
    fetched[7] = readValue(firstKeyRow + min(valuePosition7, lastPosition), (local + 448) % 20);
    fetched[8] = readValue(firstKeyRow + min(valuePosition8, lastPosition), (local + 512) % 20);
    fetched[9] = readValue(firstKeyRow + min(valuePosition9, lastPosition), (local + 576) % 20);
    nextPositions[0] = positionIn(head, nextTile, (local / 16));
    nextPositions[1] = positionIn(head, nextTile, ((local + 64) / 16));
    nextPositions[2] = positionIn(head, nextTile, ((local + 128) / 16));
    nextPositions[3] = positionIn(head, nextTile, ((local + 192) / 16));
    nextPositions[4] = positionIn(head, nextTile, ((local + 256) / 16));
    nextPositions[5] = positionIn(head, nextTile, ((local + 320) / 16));
    nextPositions[6] = positionIn(head, nextTile, ((local + 384) / 16));
    nextPositions[7] = positionIn(head, nextTile, ((local + 448) / 16));

    // 2. Scores, masked, and the maximum of each row over this invocation's columns. The initial value is needed: without
    // one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();
    for (var s = 0; s < 4; s++) {
      let i = s * 4;
      {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    }
    let position0 = keyPositions[x + 0 * threadsX];
    let position1 = keyPositions[x + 1 * threadsX];
    {
      let lastVisible = uniforms.queryOffset + (firstRow + y + 0 * threadsY) % uniforms.queryLength;
      let maskStart = maskRow(head + (firstRow + y + 0 * threadsY) / uniforms.queryLength, (firstRow + y + 0 * threadsY) % uniforms.queryLength);
      scores[0][0] = select(maskedScore(scores[0][0], maskStart, position0), masked, position0 > lastVisible);
    scores[0][1] = select(maskedScore(scores[0][1], maskStart, position1), masked, position1 > lastVisible);
    }
    {
      let lastVisible = uniforms.queryOffset + (firstRow + y + 1 * threadsY) % uniforms.queryLength;
      let maskStart = maskRow(head + (firstRow + y + 1 * threadsY) / uniforms.queryLength, (firstRow + y + 1 * threadsY) % uniforms.queryLength);
      scores[1][0] = select(maskedScore(scores[1][0], maskStart, position0), masked, position0 > lastVisible);
    scores[1][1] = select(maskedScore(scores[1][1], maskStart, position1), masked, position1 > lastVisible);
    }
    var columnMax = vec2<f32>(lowest);
    columnMax[0] = max(columnMax[0], scores[0][0]);
    columnMax[0] = max(columnMax[0], scores[0][1]);
    columnMax[1] = max(columnMax[1], scores[1][0]);
    columnMax[1] = max(columnMax[1], scores[1][1]);
    rowPartials[y * weightStride + x] = columnMax;
    // Barrier: the maximum of a row needs the parts of all x; and no key is read any more, so values may replace them.
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    var newMax = rowMax;
    newMax = max(newMax, rowPartials[y * weightStride + 0]);
    newMax = max(newMax, rowPartials[y * weightStride + 1]);
    newMax = max(newMax, rowPartials[y * weightStride + 2]);
    newMax = max(newMax, rowPartials[y * weightStride + 3]);
    newMax = max(newMax, rowPartials[y * weightStride + 4]);
    newMax = max(newMax, rowPartials[y * weightStride + 5]);
    newMax = max(newMax, rowPartials[y * weightStride + 6]);
    newMax = max(newMax, rowPartials[y * weightStride + 7]);
    newMax = max(newMax, rowPartials[y * weightStride + 8]);
    newMax = max(newMax, rowPartials[y * weightStride + 9]);
    newMax = max(newMax, rowPartials[y * weightStride + 10]);
    newMax = max(newMax, rowPartials[y * weightStride + 11]);
    newMax = max(newMax, rowPartials[y * weightStride + 12]);
    newMax = max(newMax, rowPartials[y * weightStride + 13]);
    newMax = max(newMax, rowPartials[y * weightStride + 14]);
    newMax = max(newMax, rowPartials[y * weightStride + 15]);
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[0][0] - newMax[0]);
    weight[1] = exp2(scores[0][1] - newMax[0]);
      rowSum[0] = fma(rowSum[0], rescale[0], weight[0] + weight[1]);
      weights[(y + 0 * threadsY) * weightStride + x] = vec2<f32>(weight[0], weight[1]);
      output[0][0] *= rescale[0];
    output[0][1] *= rescale[0];
    }
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[1][0] - newMax[1]);
    weight[1] = exp2(scores[1][1] - newMax[1]);
      rowSum[1] = fma(rowSum[1], rescale[1], weight[0] + weight[1]);
      weights[(y + 1 * threadsY) * weightStride + x] = vec2<f32>(weight[0], weight[1]);
      output[1][0] *= rescale[1];
    output[1][1] *= rescale[1];
    }
    if (valuePosition0 > seenByAll) { fetched[0] = withhold(select(vec4<f32>(), fetched[0], valuePosition0 != paddingPosition)); }
    if (valuePosition1 > seenByAll) { fetched[1] = withhold(select(vec4<f32>(), fetched[1], valuePosition1 != paddingPosition)); }
    if (valuePosition2 > seenByAll) { fetched[2] = withhold(select(vec4<f32>(), fetched[2], valuePosition2 != paddingPosition)); }
    if (valuePosition3 > seenByAll) { fetched[3] = withhold(select(vec4<f32>(), fetched[3], valuePosition3 != paddingPosition)); }
    if (valuePosition4 > seenByAll) { fetched[4] = withhold(select(vec4<f32>(), fetched[4], valuePosition4 != paddingPosition)); }
    if (valuePosition5 > seenByAll) { fetched[5] = withhold(select(vec4<f32>(), fetched[5], valuePosition5 != paddingPosition)); }
    if (valuePosition6 > seenByAll) { fetched[6] = withhold(select(vec4<f32>(), fetched[6], valuePosition6 != paddingPosition)); }
    if (valuePosition7 > seenByAll) { fetched[7] = withhold(select(vec4<f32>(), fetched[7], valuePosition7 != paddingPosition)); }
    if (valuePosition8 > seenByAll) { fetched[8] = withhold(select(vec4<f32>(), fetched[8], valuePosition8 != paddingPosition)); }
    if (valuePosition9 > seenByAll) { fetched[9] = withhold(select(vec4<f32>(), fetched[9], valuePosition9 != paddingPosition)); }
    {
      keyTile[(local / 20) * tileStride + local % 20] = fetched[0];
    }
    {
      keyTile[((local + 64) / 20) * tileStride + (local + 64) % 20] = fetched[1];
    }
    {
      keyTile[((local + 128) / 20) * tileStride + (local + 128) % 20] = fetched[2];
    }
    {
      keyTile[((local + 192) / 20) * tileStride + (local + 192) % 20] = fetched[3];
    }
    {
      keyTile[((local + 256) / 20) * tileStride + (local + 256) % 20] = fetched[4];
    }
    {
      keyTile[((local + 320) / 20) * tileStride + (local + 320) % 20] = fetched[5];
    }
    {
      keyTile[((local + 384) / 20) * tileStride + (local + 384) % 20] = fetched[6];
    }
    {
      keyTile[((local + 448) / 20) * tileStride + (local + 448) % 20] = fetched[7];
    }
    {
      keyTile[((local + 512) / 20) * tileStride + (local + 512) % 20] = fetched[8];
    }
    {
      keyTile[((local + 576) / 20) * tileStride + (local + 576) % 20] = fetched[9];
    }
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, firstTile + t + 2, firstTile + keyTiles);
    fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 16);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), (local + 64) % 16);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), (local + 128) % 16);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), (local + 192) % 16);
    fetched[4] = readKey(firstKeyRow + min(nextPositions[4], lastPosition), (local + 256) % 16);
    fetched[5] = readKey(firstKeyRow + min(nextPositions[5], lastPosition), (local + 320) % 16);
    fetched[6] = readKey(firstKeyRow + min(nextPositions[6], lastPosition), (local + 384) % 16);
    fetched[7] = readKey(firstKeyRow + min(nextPositions[7], lastPosition), (local + 448) % 16);

    // 4. Weighted sum of values.
    for (var s = 0; s < 4; s++) {
      let i = s * 4;
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
      {
        let b = keyTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[0]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[0]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[1]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[1]), b, output[1][0]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 0 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 0 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
      {
        let b = keyTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[0]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[0]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[1]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[1]), b, output[1][0]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 1 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 1 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
      {
        let b = keyTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[0]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[0]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[1]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[1]), b, output[1][0]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 2 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 2 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
      {
        let b = keyTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[0]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[0]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[1]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[1]), b, output[1][0]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 3 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    if (x + 1 * threadsX < 20) {
        let b = keyTile[(i + 3 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
      }
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the states.
  rowPartials[y * weightStride + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec2<f32>(0.0);
  sum += rowPartials[y * weightStride + 0];
    sum += rowPartials[y * weightStride + 1];
    sum += rowPartials[y * weightStride + 2];
    sum += rowPartials[y * weightStride + 3];
    sum += rowPartials[y * weightStride + 4];
    sum += rowPartials[y * weightStride + 5];
    sum += rowPartials[y * weightStride + 6];
    sum += rowPartials[y * weightStride + 7];
    sum += rowPartials[y * weightStride + 8];
    sum += rowPartials[y * weightStride + 9];
    sum += rowPartials[y * weightStride + 10];
    sum += rowPartials[y * weightStride + 11];
    sum += rowPartials[y * weightStride + 12];
    sum += rowPartials[y * weightStride + 13];
    sum += rowPartials[y * weightStride + 14];
    sum += rowPartials[y * weightStride + 15];
  if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, min(x + 0 * threadsX, 19)));
      let withheld1 = withheldOf(readValue(firstKeyRow + position, min(x + 1 * threadsX, 19)));
      {
        let lastVisible = uniforms.queryOffset + (firstRow + y + 0 * threadsY) % uniforms.queryLength;
      let maskStart = maskRow(head + (firstRow + y + 0 * threadsY) / uniforms.queryLength, (firstRow + y + 0 * threadsY) % uniforms.queryLength);
        if (!(select(maskedScore(0.0, maskStart, position), masked, position > lastVisible) == masked)) { output[0][0] += withheld0; output[0][1] += withheld1; }
      }
      {
        let lastVisible = uniforms.queryOffset + (firstRow + y + 1 * threadsY) % uniforms.queryLength;
      let maskStart = maskRow(head + (firstRow + y + 1 * threadsY) / uniforms.queryLength, (firstRow + y + 1 * threadsY) % uniforms.queryLength);
        if (!(select(maskedScore(0.0, maskStart, position), masked, position > lastVisible) == masked)) { output[1][0] += withheld0; output[1][1] += withheld1; }
      }
        }
      }
    }
  }
  if (firstRow + y + 0 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 0 * threadsY;
    { { writeValues(outputRow, chunk, x + 0 * threadsX, output[0][0]); } }
    if (x + 1 * threadsX < 20) { { writeValues(outputRow, chunk, x + 1 * threadsX, output[0][1]); } }
    if (x == 0) { writeSums(outputRow, chunk, rowMax[0], sum[0]); }
  }
    if (firstRow + y + 1 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 1 * threadsY;
    { { writeValues(outputRow, chunk, x + 0 * threadsX, output[1][0]); } }
    if (x + 1 * threadsX < 20) { { writeValues(outputRow, chunk, x + 1 * threadsX, output[1][1]); } }
    if (x == 0) { writeSums(outputRow, chunk, rowMax[1], sum[1]); }
  }
}
