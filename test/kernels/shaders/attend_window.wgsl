// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys and keeps, for each of its rows, the running maximum, the running sum of weights and the
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

const threads = 128;
const threadsX = 8;
const threadsY = 16;
const rows = 2;
const columns = 4;
const tileQueries = 32;
const tileKeys = 32;
const headWords = 16;
const tileStride = 17;
const weightStride = 9;
var<workgroup> queryTile : array<vec4<f32>, 544>;
var<workgroup> keyTile : array<vec4<f32>, 544>;
var<workgroup> weights : array<vec4<f32>, 288>;
var<workgroup> rowPartials : array<vec2<f32>, 144>;
var<workgroup> keyPositions : array<i32, tileKeys>;

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

fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }

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
  windowStart = firstKeyTile(queryTileIndex) * tileKeys;
  let allTiles = select(0, max(0, countKeyTiles(head, endRow) - firstKeyTile(queryTileIndex)), firstRow < endRow);
  if (local == 0) {
    keyTileCount.x = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;
  let seenByAll = firstRow;
  let firstSeenByAll = uniforms.firstPosition + endRow - uniforms.window;

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec2<f32>(lowest);
  var rowSum = vec2<f32>(0.0);
  var output : array<array<vec4<f32>, 2>, rows>;
  var positions : array<i32, 4>;
  var nextPositions : array<i32, 4>;
  var fetched : array<vec4<f32>, 4>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  nextPositions[0] = positionIn(head, nextTile, (local / 16));
    nextPositions[1] = positionIn(head, nextTile, ((local + 128) / 16));
    nextPositions[2] = positionIn(head, nextTile, ((local + 256) / 16));
    nextPositions[3] = positionIn(head, nextTile, ((local + 384) / 16));
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 16);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), (local + 384) % 16);
  {
    var fetched = array<vec4<f32>, 4>();
    if (firstRow + (local / 16) < endRow) { fetched[0] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + (local / 16), local % 16); }
    if (firstRow + ((local + 128) / 16) < endRow) { fetched[1] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ((local + 128) / 16), (local + 128) % 16); }
    if (firstRow + ((local + 256) / 16) < endRow) { fetched[2] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ((local + 256) / 16), (local + 256) % 16); }
    if (firstRow + ((local + 384) / 16) < endRow) { fetched[3] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ((local + 384) / 16), (local + 384) % 16); }
    {
      queryTile[(local / 16) * tileStride + local % 16] = fetched[0];
    }
    {
      queryTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[1];
    }
    {
      queryTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[2];
    }
    {
      queryTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[3];
    }
    }

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    positions[0] = nextPositions[0];
    positions[1] = nextPositions[1];
    positions[2] = nextPositions[2];
    positions[3] = nextPositions[3];
    {
      keyTile[(local / 16) * tileStride + local % 16] = fetched[0]; if (local % 16 == 0) { keyPositions[(local / 16)] = positions[0]; }
    }
    {
      keyTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[1]; if ((local + 128) % 16 == 0) { keyPositions[((local + 128) / 16)] = positions[1]; }
    }
    {
      keyTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[2]; if ((local + 256) % 16 == 0) { keyPositions[((local + 256) / 16)] = positions[2]; }
    }
    {
      keyTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[3]; if ((local + 384) % 16 == 0) { keyPositions[((local + 384) / 16)] = positions[3]; }
    }
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    fetched[0] = readValue(firstKeyRow + min(positions[0], lastPosition), local % 16);
    fetched[1] = readValue(firstKeyRow + min(positions[1], lastPosition), (local + 128) % 16);
    fetched[2] = readValue(firstKeyRow + min(positions[2], lastPosition), (local + 256) % 16);
    fetched[3] = readValue(firstKeyRow + min(positions[3], lastPosition), (local + 384) % 16);
    nextPositions[0] = positionIn(head, nextTile, (local / 16));
    nextPositions[1] = positionIn(head, nextTile, ((local + 128) / 16));
    nextPositions[2] = positionIn(head, nextTile, ((local + 256) / 16));
    nextPositions[3] = positionIn(head, nextTile, ((local + 384) / 16));

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
    {
        let b = keyTile[(x + 2 * threadsX) * tileStride + i + 0];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = keyTile[(x + 3 * threadsX) * tileStride + i + 0];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
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
    {
        let b = keyTile[(x + 2 * threadsX) * tileStride + i + 1];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = keyTile[(x + 3 * threadsX) * tileStride + i + 1];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
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
    {
        let b = keyTile[(x + 2 * threadsX) * tileStride + i + 2];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = keyTile[(x + 3 * threadsX) * tileStride + i + 2];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
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
    {
        let b = keyTile[(x + 2 * threadsX) * tileStride + i + 3];
        scores[0][2] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][2]))));
    scores[1][2] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][2]))));
      }
    {
        let b = keyTile[(x + 3 * threadsX) * tileStride + i + 3];
        scores[0][3] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][3]))));
    scores[1][3] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][3]))));
      }
      }
    }
    let position0 = keyPositions[x + 0 * threadsX];
    let position1 = keyPositions[x + 1 * threadsX];
    let position2 = keyPositions[x + 2 * threadsX];
    let position3 = keyPositions[x + 3 * threadsX];
    {
      let lastVisible = firstRow + y + 0 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 0 * threadsY - uniforms.window + 1;
      scores[0][0] = select(select(scores[0][0], masked, position0 < firstVisible), masked, position0 > lastVisible);
    scores[0][1] = select(select(scores[0][1], masked, position1 < firstVisible), masked, position1 > lastVisible);
    scores[0][2] = select(select(scores[0][2], masked, position2 < firstVisible), masked, position2 > lastVisible);
    scores[0][3] = select(select(scores[0][3], masked, position3 < firstVisible), masked, position3 > lastVisible);
    }
    {
      let lastVisible = firstRow + y + 1 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 1 * threadsY - uniforms.window + 1;
      scores[1][0] = select(select(scores[1][0], masked, position0 < firstVisible), masked, position0 > lastVisible);
    scores[1][1] = select(select(scores[1][1], masked, position1 < firstVisible), masked, position1 > lastVisible);
    scores[1][2] = select(select(scores[1][2], masked, position2 < firstVisible), masked, position2 > lastVisible);
    scores[1][3] = select(select(scores[1][3], masked, position3 < firstVisible), masked, position3 > lastVisible);
    }
    var columnMax = vec2<f32>(lowest);
    columnMax[0] = max(columnMax[0], scores[0][0]);
    columnMax[0] = max(columnMax[0], scores[0][1]);
    columnMax[0] = max(columnMax[0], scores[0][2]);
    columnMax[0] = max(columnMax[0], scores[0][3]);
    columnMax[1] = max(columnMax[1], scores[1][0]);
    columnMax[1] = max(columnMax[1], scores[1][1]);
    columnMax[1] = max(columnMax[1], scores[1][2]);
    columnMax[1] = max(columnMax[1], scores[1][3]);
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
    let rescale = exp2(rowMax - newMax);
    rowMax = newMax;
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[0][0] - newMax[0]);
    weight[1] = exp2(scores[0][1] - newMax[0]);
    weight[2] = exp2(scores[0][2] - newMax[0]);
    weight[3] = exp2(scores[0][3] - newMax[0]);
      rowSum[0] = fma(rowSum[0], rescale[0], weight[0] + weight[1] + weight[2] + weight[3]);
      weights[(y + 0 * threadsY) * weightStride + x] = vec4<f32>(weight[0], weight[1], weight[2], weight[3]);
      output[0][0] *= rescale[0];
    output[0][1] *= rescale[0];
    }
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[1][0] - newMax[1]);
    weight[1] = exp2(scores[1][1] - newMax[1]);
    weight[2] = exp2(scores[1][2] - newMax[1]);
    weight[3] = exp2(scores[1][3] - newMax[1]);
      rowSum[1] = fma(rowSum[1], rescale[1], weight[0] + weight[1] + weight[2] + weight[3]);
      weights[(y + 1 * threadsY) * weightStride + x] = vec4<f32>(weight[0], weight[1], weight[2], weight[3]);
      output[1][0] *= rescale[1];
    output[1][1] *= rescale[1];
    }
    if ((positions[0] > seenByAll || positions[0] < firstSeenByAll)) { fetched[0] = withhold(select(vec4<f32>(), fetched[0], positions[0] != paddingPosition)); }
    if ((positions[1] > seenByAll || positions[1] < firstSeenByAll)) { fetched[1] = withhold(select(vec4<f32>(), fetched[1], positions[1] != paddingPosition)); }
    if ((positions[2] > seenByAll || positions[2] < firstSeenByAll)) { fetched[2] = withhold(select(vec4<f32>(), fetched[2], positions[2] != paddingPosition)); }
    if ((positions[3] > seenByAll || positions[3] < firstSeenByAll)) { fetched[3] = withhold(select(vec4<f32>(), fetched[3], positions[3] != paddingPosition)); }
    {
      keyTile[(local / 16) * tileStride + local % 16] = fetched[0];
    }
    {
      keyTile[((local + 128) / 16) * tileStride + (local + 128) % 16] = fetched[1];
    }
    {
      keyTile[((local + 256) / 16) * tileStride + (local + 256) % 16] = fetched[2];
    }
    {
      keyTile[((local + 384) / 16) * tileStride + (local + 384) % 16] = fetched[3];
    }
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 16);
    fetched[1] = readKey(firstKeyRow + min(nextPositions[1], lastPosition), (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + min(nextPositions[2], lastPosition), (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + min(nextPositions[3], lastPosition), (local + 384) % 16);

    // 4. Weighted sum of values.
    for (var s = 0; s < 2; s++) {
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
    {
        let b = keyTile[(i + 0 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[2]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[2]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 0 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[3]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[3]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 0 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 0 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 0 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[2]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[2]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 0 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[3]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[3]), b, output[1][1]);
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
    {
        let b = keyTile[(i + 1 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[2]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[2]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 1 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[3]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[3]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 1 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 1 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 1 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[2]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[2]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 1 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[3]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[3]), b, output[1][1]);
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
    {
        let b = keyTile[(i + 2 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[2]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[2]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 2 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[3]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[3]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 2 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 2 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 2 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[2]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[2]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 2 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[3]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[3]), b, output[1][1]);
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
    {
        let b = keyTile[(i + 3 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[2]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[2]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 3 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        output[0][0] = fma(vec4<f32>(w0[3]), b, output[0][0]);
    output[1][0] = fma(vec4<f32>(w1[3]), b, output[1][0]);
      }
    {
        let b = keyTile[(i + 3 + 0 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[0]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[0]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 3 + 1 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[1]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[1]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 3 + 2 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[2]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[2]), b, output[1][1]);
      }
    {
        let b = keyTile[(i + 3 + 3 * threadsX) * tileStride + x + 1 * threadsX];
        output[0][1] = fma(vec4<f32>(w0[3]), b, output[0][1]);
    output[1][1] = fma(vec4<f32>(w1[3]), b, output[1][1]);
      }
      }
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
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
  if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, t, keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if ((position > seenByAll || position < firstSeenByAll) && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, min(x + 0 * threadsX, 15)));
      let withheld1 = withheldOf(readValue(firstKeyRow + position, min(x + 1 * threadsX, 15)));
      {
        let lastVisible = firstRow + y + 0 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 0 * threadsY - uniforms.window + 1;
        if (!(select(select(0.0, masked, position < firstVisible), masked, position > lastVisible) == masked)) { output[0][0] += withheld0; output[0][1] += withheld1; }
      }
      {
        let lastVisible = firstRow + y + 1 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 1 * threadsY - uniforms.window + 1;
        if (!(select(select(0.0, masked, position < firstVisible), masked, position > lastVisible) == masked)) { output[1][0] += withheld0; output[1][1] += withheld1; }
      }
        }
      }
    }
  }
  if (firstRow + y + 0 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 0 * threadsY;
    { { writeOutput(outputRow, x + 0 * threadsX, select(output[0][0] / sum[0], vec4<f32>(0.0), sum[0] == 0.0)); } }
    { { writeOutput(outputRow, x + 1 * threadsX, select(output[0][1] / sum[0], vec4<f32>(0.0), sum[0] == 0.0)); } }
  }
    if (firstRow + y + 1 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 1 * threadsY;
    { { writeOutput(outputRow, x + 0 * threadsX, select(output[1][0] / sum[1], vec4<f32>(0.0), sum[1] == 0.0)); } }
    { { writeOutput(outputRow, x + 1 * threadsX, select(output[1][1] / sum[1], vec4<f32>(0.0), sum[1] == 0.0)); } }
  }
}
