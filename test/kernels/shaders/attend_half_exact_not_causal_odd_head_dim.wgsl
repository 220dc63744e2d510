// A workgroup computes the output of tileQueries query rows of one head. It walks over tiles of tileKeys keys and keeps, for each of its rows, the running maximum, the running sum of weights and the
// running weighted sum of values (online softmax).
//
// Invocation (x, y) owns rows y + r * threadsY. Of a score tile it computes the columns x + c * threadsX; of the output
// it keeps, in registers, the words x + o * threadsX, the row's maximum (the same in all x), and the sum of the weights
// of its own columns alone, added up over x once at the end.
//
// Workgroup memory, in words of 16 bytes (8 values of float16): queryTile for the whole run; keyTile, first keys, then the
// values of the same keys; keyPositions, their original indices; rowPartials, the maxima (at the end: sums) of the rows
// of a y over the columns of an x; weights, of a row in the columns of an x.
//
// Products and sums of up to 16 of them are float16, two at a time; longer sums, maxima, and weights until they are stored
// are float32. Weights are at most 2⁻⁴, and query rows are scaled to that, so that no sum leaves the range of float16.
//
// Global memory is read ahead into registers: values while scores are computed, the next keys while values are added up,
// and the order in which they stand one step before that. A load thus has half a round to arrive.

const threads = 128;
const threadsX = 8;
const threadsY = 16;
const rows = 4;
const columns = 4;
const tileQueries = 64;
const tileKeys = 32;
const headWords = 2;
const tileStride = 3;
const weightStride = 9;
var<workgroup> queryTile : array<vec4<u32>, 192>;
var<workgroup> keyTile : array<vec4<u32>, 96>;
var<workgroup> weights : array<vec2<u32>, 576>;
var<workgroup> rowPartials : array<vec4<f32>, 144>;
var<workgroup> keyPositions : array<i32, tileKeys>;

alias half2 = vec2<f16>;
fn halves(x : u32) -> half2 { return bitcast<half2>(x); }
fn multiplyAdd(a : half2, b : half2, sum : half2) -> half2 { return fma(a, b, sum); }

fn packedFloat16(x : vec4<f32>) -> vec2<u32> {
  let bits = bitcast<vec4<u32>>(x);
  let isFinite = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  let y = select(vec4<f32>(0.0), clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
  let fraction = select(vec4<u32>(0u), vec4<u32>(0x200u), (bits & vec4<u32>(0x7fffffu)) != vec4<u32>(0u));
  let others = select(((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | vec4<u32>(0x7c00u) | fraction, vec4<u32>(0u), isFinite);
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)) | others.xz | (others.yw << vec2<u32>(16u));
}

var<workgroup> largestBits : array<atomic<u32>, tileQueries>;
fn exponentOf(row : i32) -> u32 {
  return min(atomicLoad(&largestBits[row]) >> 23u, 248u);
}
fn queryScale(row : i32) -> f32 {
  return bitcast<f32>((249u - exponentOf(row)) << 23u);
}
fn productScale(row : i32) -> f32 {
  return bitcast<f32>((exponentOf(row) + 5u) << 23u);
}
fn findLargest(row : i32, a : vec4<f32>, b : vec4<f32>) {
  let bits = max(bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(b) & vec4<u32>(0x7fffffffu));
  atomicMax(&largestBits[row], max(max(bits.x, bits.y), max(bits.z, bits.w)));
}
const queryWords = tileQueries * 2;
fn pack(a : vec4<f32>, b : vec4<f32>) -> vec4<u32> {
  return vec4<u32>(packedFloat16(a), packedFloat16(b));
}
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
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, query[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, query[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, query[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, query[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }
fn readKey(row : i32, word : i32) -> vec4<i32> { return key[uniforms.firstKey + row * 2 + word]; }
fn readValueWord(row : i32, word : i32) -> vec4<i32> { return key[uniforms.firstValue + row * 2 + word]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> {
  let words = bitcast<vec4<u32>>(key[uniforms.firstValue + row * 2 + vector / 2]);
  let pairs = select(words.xy, words.zw, vector % 2 == 1);
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}

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
  let allTiles = select(0, countKeyTiles(head, endRow), firstRow < endRow);
  if (local == 0) {
    keyTileCount.x = allTiles;
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;
  let seenByAll = paddingPosition - 1;

  // Empty state of the online softmax: nothing seen, all sums zero.
  var rowMax = vec4<f32>(lowest);
  var rowSum = vec4<f32>(0.0);
  var output : array<array<vec4<f32>, 2>, rows>;
  var positions : array<i32, 1>;
  var nextPositions : array<i32, 1>;
  var fetched : array<vec4<i32>, 1>;
  var nextTile = keySlots(head, queryTileIndex, 0, keyTiles);
  nextPositions[0] = positionIn(head, nextTile, (local / 2));
  nextTile = keySlots(head, queryTileIndex, 1, keyTiles);
  fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 2);
  for (var i = local; i < queryWords; i += 128) {
    let row = i / 2;
    if (firstRow + row < endRow) {
      let at = head * uniforms.queryLength + firstRow + row;
      let vector = 2 * (i % 2);
      findLargest(row, uniforms.logitScale * readQuery(at, vector), uniforms.logitScale * readQuery(at, vector + 1));
    }
  }
  // Barrier: the scale of a row needs all of it.
  workgroupBarrier();
  {
    var fetched = array<vec4<f32>, 2>();
    if (firstRow + (local / 2) < endRow) { fetched[0] = queryScale((local / 2)) * (uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + (local / 2), (local % 2) * 2 + 0)); fetched[1] = queryScale((local / 2)) * (uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + (local / 2), (local % 2) * 2 + 1)); }
    {
      queryTile[(local / 2) * tileStride + local % 2] = pack(fetched[0], fetched[1]);
    }
    }
  let productScale0 = productScale(y + 0 * threadsY);
  let productScale1 = productScale(y + 1 * threadsY);
  let productScale2 = productScale(y + 2 * threadsY);
  let productScale3 = productScale(y + 3 * threadsY);

  for (var t = 0; t < keyTiles; t++) {
    // 1. Keys into workgroup memory; values and the next positions on their way.
    positions[0] = nextPositions[0];
    if (local < 64) {
      keyTile[(local / 2) * tileStride + local % 2] = bitcast<vec4<u32>>(fetched[0]); if (local % 2 == 0) { keyPositions[(local / 2)] = positions[0]; }
    }
    // Barrier: scores read key rows (and, the first time, query rows) that others loaded.
    workgroupBarrier();
    fetched[0] = readValueWord(firstKeyRow + min(positions[0], lastPosition), local % 2);
    nextPositions[0] = positionIn(head, nextTile, (local / 2));

    // 2. Scores, masked, and the maximum of each row over this invocation's columns. The initial value is needed: without
    // one the scores of the last round stay.
    var scores = array<array<f32, columns>, rows>();
    for (var s = 0; s < 1; s++) {
      let i = s * 2;
      var sums = array<half2, 16>();
      {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 0];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 0];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 0];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 0];
      {
        let k = keyTile[(x + 0 * threadsX) * tileStride + i + 0];
        sums[0] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[0]);
    sums[4] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[4]);
    sums[8] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[8]);
    sums[12] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[12]);
      }
    {
        let k = keyTile[(x + 1 * threadsX) * tileStride + i + 0];
        sums[1] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[1]);
    sums[5] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[5]);
    sums[9] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[9]);
    sums[13] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[13]);
      }
    {
        let k = keyTile[(x + 2 * threadsX) * tileStride + i + 0];
        sums[2] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[2]);
    sums[6] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[6]);
    sums[10] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[10]);
    sums[14] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[14]);
      }
    {
        let k = keyTile[(x + 3 * threadsX) * tileStride + i + 0];
        sums[3] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[3]);
    sums[7] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[7]);
    sums[11] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[11]);
    sums[15] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[15]);
      }
      }
    {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 1];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 1];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 1];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 1];
      {
        let k = keyTile[(x + 0 * threadsX) * tileStride + i + 1];
        sums[0] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[0]);
    sums[0] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[0]);
    sums[4] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[4]);
    sums[4] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[4]);
    sums[8] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[8]);
    sums[8] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[8]);
    sums[12] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[12]);
    sums[12] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[12]);
      }
    {
        let k = keyTile[(x + 1 * threadsX) * tileStride + i + 1];
        sums[1] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[1]);
    sums[1] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[1]);
    sums[5] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[5]);
    sums[5] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[5]);
    sums[9] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[9]);
    sums[9] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[9]);
    sums[13] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[13]);
    sums[13] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[13]);
      }
    {
        let k = keyTile[(x + 2 * threadsX) * tileStride + i + 1];
        sums[2] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[2]);
    sums[2] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[2]);
    sums[6] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[6]);
    sums[6] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[6]);
    sums[10] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[10]);
    sums[10] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[10]);
    sums[14] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[14]);
    sums[14] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[14]);
      }
    {
        let k = keyTile[(x + 3 * threadsX) * tileStride + i + 1];
        sums[3] = multiplyAdd(halves(q0[0]), halves(k[0]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[1]), halves(k[1]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[2]), halves(k[2]), sums[3]);
    sums[3] = multiplyAdd(halves(q0[3]), halves(k[3]), sums[3]);
    sums[7] = multiplyAdd(halves(q1[0]), halves(k[0]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[1]), halves(k[1]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[2]), halves(k[2]), sums[7]);
    sums[7] = multiplyAdd(halves(q1[3]), halves(k[3]), sums[7]);
    sums[11] = multiplyAdd(halves(q2[0]), halves(k[0]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[1]), halves(k[1]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[2]), halves(k[2]), sums[11]);
    sums[11] = multiplyAdd(halves(q2[3]), halves(k[3]), sums[11]);
    sums[15] = multiplyAdd(halves(q3[0]), halves(k[0]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[1]), halves(k[1]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[2]), halves(k[2]), sums[15]);
    sums[15] = multiplyAdd(halves(q3[3]), halves(k[3]), sums[15]);
      }
      }
      scores[0][0] = fma(f32(sums[0].x) + f32(sums[0].y), productScale0, scores[0][0]);
    scores[0][1] = fma(f32(sums[1].x) + f32(sums[1].y), productScale0, scores[0][1]);
    scores[0][2] = fma(f32(sums[2].x) + f32(sums[2].y), productScale0, scores[0][2]);
    scores[0][3] = fma(f32(sums[3].x) + f32(sums[3].y), productScale0, scores[0][3]);
    scores[1][0] = fma(f32(sums[4].x) + f32(sums[4].y), productScale1, scores[1][0]);
    scores[1][1] = fma(f32(sums[5].x) + f32(sums[5].y), productScale1, scores[1][1]);
    scores[1][2] = fma(f32(sums[6].x) + f32(sums[6].y), productScale1, scores[1][2]);
    scores[1][3] = fma(f32(sums[7].x) + f32(sums[7].y), productScale1, scores[1][3]);
    scores[2][0] = fma(f32(sums[8].x) + f32(sums[8].y), productScale2, scores[2][0]);
    scores[2][1] = fma(f32(sums[9].x) + f32(sums[9].y), productScale2, scores[2][1]);
    scores[2][2] = fma(f32(sums[10].x) + f32(sums[10].y), productScale2, scores[2][2]);
    scores[2][3] = fma(f32(sums[11].x) + f32(sums[11].y), productScale2, scores[2][3]);
    scores[3][0] = fma(f32(sums[12].x) + f32(sums[12].y), productScale3, scores[3][0]);
    scores[3][1] = fma(f32(sums[13].x) + f32(sums[13].y), productScale3, scores[3][1]);
    scores[3][2] = fma(f32(sums[14].x) + f32(sums[14].y), productScale3, scores[3][2]);
    scores[3][3] = fma(f32(sums[15].x) + f32(sums[15].y), productScale3, scores[3][3]);
    }
    let position0 = keyPositions[x + 0 * threadsX];
    let position1 = keyPositions[x + 1 * threadsX];
    let position2 = keyPositions[x + 2 * threadsX];
    let position3 = keyPositions[x + 3 * threadsX];
    {
      let lastVisible = paddingPosition - 1;
      scores[0][0] = select(scores[0][0], masked, position0 > lastVisible);
    scores[0][1] = select(scores[0][1], masked, position1 > lastVisible);
    scores[0][2] = select(scores[0][2], masked, position2 > lastVisible);
    scores[0][3] = select(scores[0][3], masked, position3 > lastVisible);
    }
    {
      let lastVisible = paddingPosition - 1;
      scores[1][0] = select(scores[1][0], masked, position0 > lastVisible);
    scores[1][1] = select(scores[1][1], masked, position1 > lastVisible);
    scores[1][2] = select(scores[1][2], masked, position2 > lastVisible);
    scores[1][3] = select(scores[1][3], masked, position3 > lastVisible);
    }
    {
      let lastVisible = paddingPosition - 1;
      scores[2][0] = select(scores[2][0], masked, position0 > lastVisible);
    scores[2][1] = select(scores[2][1], masked, position1 > lastVisible);
    scores[2][2] = select(scores[2][2], masked, position2 > lastVisible);
    scores[2][3] = select(scores[2][3], masked, position3 > lastVisible);
    }
    {
      let lastVisible = paddingPosition - 1;
      scores[3][0] = select(scores[3][0], masked, position0 > lastVisible);
    scores[3][1] = select(scores[3][1], masked, position1 > lastVisible);
    scores[3][2] = select(scores[3][2], masked, position2 > lastVisible);
    scores[3][3] = select(scores[3][3], masked, position3 > lastVisible);
    }
    var columnMax = vec4<f32>(lowest);
    columnMax[0] = max(columnMax[0], scores[0][0]);
    columnMax[0] = max(columnMax[0], scores[0][1]);
    columnMax[0] = max(columnMax[0], scores[0][2]);
    columnMax[0] = max(columnMax[0], scores[0][3]);
    columnMax[1] = max(columnMax[1], scores[1][0]);
    columnMax[1] = max(columnMax[1], scores[1][1]);
    columnMax[1] = max(columnMax[1], scores[1][2]);
    columnMax[1] = max(columnMax[1], scores[1][3]);
    columnMax[2] = max(columnMax[2], scores[2][0]);
    columnMax[2] = max(columnMax[2], scores[2][1]);
    columnMax[2] = max(columnMax[2], scores[2][2]);
    columnMax[2] = max(columnMax[2], scores[2][3]);
    columnMax[3] = max(columnMax[3], scores[3][0]);
    columnMax[3] = max(columnMax[3], scores[3][1]);
    columnMax[3] = max(columnMax[3], scores[3][2]);
    columnMax[3] = max(columnMax[3], scores[3][3]);
    rowPartials[y * weightStride + x] = columnMax + 4.0;
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
      weights[(y + 0 * threadsY) * weightStride + x] = vec2<u32>(pack2x16float(vec2<f32>(weight[0], weight[1])), pack2x16float(vec2<f32>(weight[2], weight[3])));
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
      weights[(y + 1 * threadsY) * weightStride + x] = vec2<u32>(pack2x16float(vec2<f32>(weight[0], weight[1])), pack2x16float(vec2<f32>(weight[2], weight[3])));
      output[1][0] *= rescale[1];
    output[1][1] *= rescale[1];
    }
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[2][0] - newMax[2]);
    weight[1] = exp2(scores[2][1] - newMax[2]);
    weight[2] = exp2(scores[2][2] - newMax[2]);
    weight[3] = exp2(scores[2][3] - newMax[2]);
      rowSum[2] = fma(rowSum[2], rescale[2], weight[0] + weight[1] + weight[2] + weight[3]);
      weights[(y + 2 * threadsY) * weightStride + x] = vec2<u32>(pack2x16float(vec2<f32>(weight[0], weight[1])), pack2x16float(vec2<f32>(weight[2], weight[3])));
      output[2][0] *= rescale[2];
    output[2][1] *= rescale[2];
    }
    {
      var weight : array<f32, columns>;
      weight[0] = exp2(scores[3][0] - newMax[3]);
    weight[1] = exp2(scores[3][1] - newMax[3]);
    weight[2] = exp2(scores[3][2] - newMax[3]);
    weight[3] = exp2(scores[3][3] - newMax[3]);
      rowSum[3] = fma(rowSum[3], rescale[3], weight[0] + weight[1] + weight[2] + weight[3]);
      weights[(y + 3 * threadsY) * weightStride + x] = vec2<u32>(pack2x16float(vec2<f32>(weight[0], weight[1])), pack2x16float(vec2<f32>(weight[2], weight[3])));
      output[3][0] *= rescale[3];
    output[3][1] *= rescale[3];
    }
    if (positions[0] > seenByAll) { fetched[0] = withholdWords(select(vec4<i32>(), fetched[0], positions[0] != paddingPosition)); }
    if (local < 64) {
      keyTile[(local / 2) * tileStride + local % 2] = bitcast<vec4<u32>>(fetched[0]);
    }
    // Barrier: the weighted sum reads the weights of all x and values that others loaded.
    workgroupBarrier();
    nextTile = keySlots(head, queryTileIndex, t + 2, keyTiles);
    fetched[0] = readKey(firstKeyRow + min(nextPositions[0], lastPosition), local % 2);

    // 4. Weighted sum of values.
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      var sums = array<half2, 16>();
      {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 0];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 0];
    let w2 = weights[(y + 2 * threadsY) * weightStride + i + 0];
    let w3 = weights[(y + 3 * threadsY) * weightStride + i + 0];
      if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 0 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 0 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 0 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 0 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 1];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 1];
    let w2 = weights[(y + 2 * threadsY) * weightStride + i + 1];
    let w3 = weights[(y + 3 * threadsY) * weightStride + i + 1];
      if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 1 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 1 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 1 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 1 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 2];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 2];
    let w2 = weights[(y + 2 * threadsY) * weightStride + i + 2];
    let w3 = weights[(y + 3 * threadsY) * weightStride + i + 2];
      if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 2 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 2 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 2 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 2 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
      }
    {
      let w0 = weights[(y + 0 * threadsY) * weightStride + i + 3];
    let w1 = weights[(y + 1 * threadsY) * weightStride + i + 3];
    let w2 = weights[(y + 2 * threadsY) * weightStride + i + 3];
    let w3 = weights[(y + 3 * threadsY) * weightStride + i + 3];
      if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 3 + 0 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 3 + 1 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[0])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[0])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[0])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[0])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 3 + 2 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[0]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[0]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[0]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[0]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
    if (x + 0 * threadsX < 2) {
        let v = keyTile[(i + 3 + 3 * threadsX) * tileStride + x + 0 * threadsX];
        {
        let w = half2(halves(w0[1])[1]);
        sums[0] = multiplyAdd(w, halves(v[0]), sums[0]);
    sums[1] = multiplyAdd(w, halves(v[1]), sums[1]);
    sums[2] = multiplyAdd(w, halves(v[2]), sums[2]);
    sums[3] = multiplyAdd(w, halves(v[3]), sums[3]);
        }
    {
        let w = half2(halves(w1[1])[1]);
        sums[4] = multiplyAdd(w, halves(v[0]), sums[4]);
    sums[5] = multiplyAdd(w, halves(v[1]), sums[5]);
    sums[6] = multiplyAdd(w, halves(v[2]), sums[6]);
    sums[7] = multiplyAdd(w, halves(v[3]), sums[7]);
        }
    {
        let w = half2(halves(w2[1])[1]);
        sums[8] = multiplyAdd(w, halves(v[0]), sums[8]);
    sums[9] = multiplyAdd(w, halves(v[1]), sums[9]);
    sums[10] = multiplyAdd(w, halves(v[2]), sums[10]);
    sums[11] = multiplyAdd(w, halves(v[3]), sums[11]);
        }
    {
        let w = half2(halves(w3[1])[1]);
        sums[12] = multiplyAdd(w, halves(v[0]), sums[12]);
    sums[13] = multiplyAdd(w, halves(v[1]), sums[13]);
    sums[14] = multiplyAdd(w, halves(v[2]), sums[14]);
    sums[15] = multiplyAdd(w, halves(v[3]), sums[15]);
        }
      }
      }
      output[0][0] += vec4<f32>(vec2<f32>(sums[0]), vec2<f32>(sums[1]));
    output[0][1] += vec4<f32>(vec2<f32>(sums[2]), vec2<f32>(sums[3]));
    output[1][0] += vec4<f32>(vec2<f32>(sums[4]), vec2<f32>(sums[5]));
    output[1][1] += vec4<f32>(vec2<f32>(sums[6]), vec2<f32>(sums[7]));
    output[2][0] += vec4<f32>(vec2<f32>(sums[8]), vec2<f32>(sums[9]));
    output[2][1] += vec4<f32>(vec2<f32>(sums[10]), vec2<f32>(sums[11]));
    output[3][0] += vec4<f32>(vec2<f32>(sums[12]), vec2<f32>(sums[13]));
    output[3][1] += vec4<f32>(vec2<f32>(sums[14]), vec2<f32>(sums[15]));
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }

  // 5. The sums of all columns, and the output.
  rowPartials[y * weightStride + x] = rowSum;
  // Barrier: the sum of a row needs the parts of all x.
  workgroupBarrier();
  var sum = vec4<f32>(0.0);
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
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, min((x + 0 * threadsX) * 2 + 0, 2)));
      let withheld1 = withheldOf(readValue(firstKeyRow + position, min((x + 0 * threadsX) * 2 + 1, 2)));
      {
        let lastVisible = paddingPosition - 1;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { output[0][0] += withheld0; output[0][1] += withheld1; }
      }
      {
        let lastVisible = paddingPosition - 1;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { output[1][0] += withheld0; output[1][1] += withheld1; }
      }
      {
        let lastVisible = paddingPosition - 1;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { output[2][0] += withheld0; output[2][1] += withheld1; }
      }
      {
        let lastVisible = paddingPosition - 1;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { output[3][0] += withheld0; output[3][1] += withheld1; }
      }
        }
      }
    }
  }
  if (firstRow + y + 0 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 0 * threadsY;
    if (x + 0 * threadsX < 2) { if ((x + 0 * threadsX) * 2 + 0 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 0, select(output[0][0] / sum[0], vec4<f32>(0.0), sum[0] == 0.0)); } if ((x + 0 * threadsX) * 2 + 1 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 1, select(output[0][1] / sum[0], vec4<f32>(0.0), sum[0] == 0.0)); } }
  }
    if (firstRow + y + 1 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 1 * threadsY;
    if (x + 0 * threadsX < 2) { if ((x + 0 * threadsX) * 2 + 0 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 0, select(output[1][0] / sum[1], vec4<f32>(0.0), sum[1] == 0.0)); } if ((x + 0 * threadsX) * 2 + 1 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 1, select(output[1][1] / sum[1], vec4<f32>(0.0), sum[1] == 0.0)); } }
  }
    if (firstRow + y + 2 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 2 * threadsY;
    if (x + 0 * threadsX < 2) { if ((x + 0 * threadsX) * 2 + 0 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 0, select(output[2][0] / sum[2], vec4<f32>(0.0), sum[2] == 0.0)); } if ((x + 0 * threadsX) * 2 + 1 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 1, select(output[2][1] / sum[2], vec4<f32>(0.0), sum[2] == 0.0)); } }
  }
    if (firstRow + y + 3 * threadsY < endRow) {
    let outputRow = head * uniforms.queryLength + firstRow + y + 3 * threadsY;
    if (x + 0 * threadsX < 2) { if ((x + 0 * threadsX) * 2 + 0 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 0, select(output[3][0] / sum[3], vec4<f32>(0.0), sum[3] == 0.0)); } if ((x + 0 * threadsX) * 2 + 1 < 3) { writeOutput(outputRow, (x + 0 * threadsX) * 2 + 1, select(output[3][1] / sum[3], vec4<f32>(0.0), sum[3] == 0.0)); } }
  }
}
