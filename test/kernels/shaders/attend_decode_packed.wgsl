// A workgroup takes all query rows of the heads that read one key head (4 at most: all rows of the first head, then of the second,
// …) and one of several chunks of the keys. Its 4 teams of 16 invocations take 16 keys each at a time, keep states of the softmax of
// their own, and merge them in the end.
//
// Keys and values, two float16 a word, go from global memory to registers, all loads of 16 keys at once. 4 invocations share the product of a row and
// a key; of the values an invocation takes one vec4 of each key, and keeps that of the output of every row. A weight is computed once in a
// team, beside those of 8 keys and by their greatest score; all of the team bring sums of a group's weights to the row's.
//
// Workgroup memory: queryRows for the whole run; of each team and row the 4 parts of the products with its keys (scoreParts), then
// the weights, and of each group of keys the greatest score and the sum of the weights (groupSums).
const threads = 64;
const tileQueries = 4;
const tileKeys = 64;
var<workgroup> queryRows : array<vec4<f32>, 64>;
var<workgroup> scoreParts : array<f32, 1296>;
var<workgroup> weights : array<vec4<f32>, 68>;
var<workgroup> groupSums : array<vec2<f32>, 36>;

fn writeValues(row : i32, chunk : i32, vector : i32, x : vec4<f32>) {
  result[(row * uniforms.outShape.y + chunk) * 17 + vector] = x;
}
fn writeSums(row : i32, chunk : i32, maximum : f32, sum : f32) {
  result[(row * uniforms.outShape.y + chunk) * 17 + 16] = vec4<f32>(maximum, sum, 0.0, 0.0);
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


struct State {
  maximum : f32,
  sum : f32,
  values : vec4<f32>,
};
const emptyState = State(lowest, 0.0, vec4<f32>(0.0));

fn merge(a : State, b : State) -> State {
  let maximum = max(a.maximum, b.maximum);
  let x = weighted(a, maximum);
  let y = weighted(b, maximum);
  return State(maximum, x.sum + y.sum, x.values + y.values);
}

// A state brought to another maximum. One without weights need not have its values written: they may be what zero times makes a NaN.
fn weighted(x : State, maximum : f32) -> State {
  let rescale = exp2(x.maximum - maximum);
  return State(maximum, x.sum * rescale, select(x.values * rescale, vec4<f32>(0.0), x.sum == 0.0));
}

var<workgroup> laneStates : array<State, 64>;

// All invocations call it together; those of the first lane get what all lanes have.
fn mergeLanes(own : State) -> State {
  let local = i32(min(localIndex, 63u));
  var state = own;
  laneStates[local] = state;
  // Barrier: the first lane reads what all lanes wrote.
  workgroupBarrier();
  for (var i = local + 16; i < 64 && local < 16; i += 16) {
    state = merge(state, laneStates[i]);
  }
  return state;
}
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> {
  let words = bitcast<vec4<u32>>(key[row * 8 + vector / 2]);
  let pairs = select(words.xy, words.zw, vector % 2 == 1);
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}
fn readValue(row : i32, vector : i32) -> vec4<f32> {
  let words = bitcast<vec4<u32>>(value[row * 8 + vector / 2]);
  let pairs = select(words.xy, words.zw, vector % 2 == 1);
  return vec4<f32>(unpack2x16float(pairs.x), unpack2x16float(pairs.y));
}

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
  let team = local / 16;
  let lane = local % 16;
  let part = lane % 4;
  // The vec4 of values; invocations without one read the last, and write nothing.
  let vector = lane;
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
  let seenByAll = uniforms.queryOffset + (0) % uniforms.queryLength;
  for (var i = local; i < 64; i += threads) {
    let row = firstRow + i / 16;
    queryRows[i] = select(vec4<f32>(), uniforms.logitScale * readQuery(head * uniforms.queryLength + min(row, endRow - 1), i % 16), row < endRow);
  }
  // Barrier: all read all query rows.
  workgroupBarrier();

  var state0 = emptyState;
    var state1 = emptyState;
    var state2 = emptyState;
    var state3 = emptyState;
  for (var t = 0; t < keyTiles; t++) {
    let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
    // 1. Keys and values on their way.
    let key0_0 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 0, lastPosition), min(part + 0, 15));
    let key0_1 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 0, lastPosition), min(part + 4, 15));
    let key0_2 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 0, lastPosition), min(part + 8, 15));
    let key0_3 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 0, lastPosition), min(part + 12, 15));
    let key1_0 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 4, lastPosition), min(part + 0, 15));
    let key1_1 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 4, lastPosition), min(part + 4, 15));
    let key1_2 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 4, lastPosition), min(part + 8, 15));
    let key1_3 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 4, lastPosition), min(part + 12, 15));
    let key2_0 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 8, lastPosition), min(part + 0, 15));
    let key2_1 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 8, lastPosition), min(part + 4, 15));
    let key2_2 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 8, lastPosition), min(part + 8, 15));
    let key2_3 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 8, lastPosition), min(part + 12, 15));
    let key3_0 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 12, lastPosition), min(part + 0, 15));
    let key3_1 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 12, lastPosition), min(part + 4, 15));
    let key3_2 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 12, lastPosition), min(part + 8, 15));
    let key3_3 = readKey(firstKeyRow + min(tile.x + team * 16 + lane / 4 + 12, lastPosition), min(part + 12, 15));
    var value0 = readValue(firstKeyRow + min(tile.x + team * 16 + 0, lastPosition), vector);
    var value1 = readValue(firstKeyRow + min(tile.x + team * 16 + 1, lastPosition), vector);
    var value2 = readValue(firstKeyRow + min(tile.x + team * 16 + 2, lastPosition), vector);
    var value3 = readValue(firstKeyRow + min(tile.x + team * 16 + 3, lastPosition), vector);
    var value4 = readValue(firstKeyRow + min(tile.x + team * 16 + 4, lastPosition), vector);
    var value5 = readValue(firstKeyRow + min(tile.x + team * 16 + 5, lastPosition), vector);
    var value6 = readValue(firstKeyRow + min(tile.x + team * 16 + 6, lastPosition), vector);
    var value7 = readValue(firstKeyRow + min(tile.x + team * 16 + 7, lastPosition), vector);
    var value8 = readValue(firstKeyRow + min(tile.x + team * 16 + 8, lastPosition), vector);
    var value9 = readValue(firstKeyRow + min(tile.x + team * 16 + 9, lastPosition), vector);
    var value10 = readValue(firstKeyRow + min(tile.x + team * 16 + 10, lastPosition), vector);
    var value11 = readValue(firstKeyRow + min(tile.x + team * 16 + 11, lastPosition), vector);
    var value12 = readValue(firstKeyRow + min(tile.x + team * 16 + 12, lastPosition), vector);
    var value13 = readValue(firstKeyRow + min(tile.x + team * 16 + 13, lastPosition), vector);
    var value14 = readValue(firstKeyRow + min(tile.x + team * 16 + 14, lastPosition), vector);
    var value15 = readValue(firstKeyRow + min(tile.x + team * 16 + 15, lastPosition), vector);

    // 2. Parts of products.
    {
      var sum0 = 0.0;
    var sum1 = 0.0;
    var sum2 = 0.0;
    var sum3 = 0.0;
      {
        let query = queryRows[0 + part + 0];
        sum0 = fma(query.w, key0_0.w, fma(query.z, key0_0.z, fma(query.y, key0_0.y, fma(query.x, key0_0.x, sum0))));
    sum1 = fma(query.w, key1_0.w, fma(query.z, key1_0.z, fma(query.y, key1_0.y, fma(query.x, key1_0.x, sum1))));
    sum2 = fma(query.w, key2_0.w, fma(query.z, key2_0.z, fma(query.y, key2_0.y, fma(query.x, key2_0.x, sum2))));
    sum3 = fma(query.w, key3_0.w, fma(query.z, key3_0.z, fma(query.y, key3_0.y, fma(query.x, key3_0.x, sum3))));
      }
    {
        let query = queryRows[0 + part + 4];
        sum0 = fma(query.w, key0_1.w, fma(query.z, key0_1.z, fma(query.y, key0_1.y, fma(query.x, key0_1.x, sum0))));
    sum1 = fma(query.w, key1_1.w, fma(query.z, key1_1.z, fma(query.y, key1_1.y, fma(query.x, key1_1.x, sum1))));
    sum2 = fma(query.w, key2_1.w, fma(query.z, key2_1.z, fma(query.y, key2_1.y, fma(query.x, key2_1.x, sum2))));
    sum3 = fma(query.w, key3_1.w, fma(query.z, key3_1.z, fma(query.y, key3_1.y, fma(query.x, key3_1.x, sum3))));
      }
    {
        let query = queryRows[0 + part + 8];
        sum0 = fma(query.w, key0_2.w, fma(query.z, key0_2.z, fma(query.y, key0_2.y, fma(query.x, key0_2.x, sum0))));
    sum1 = fma(query.w, key1_2.w, fma(query.z, key1_2.z, fma(query.y, key1_2.y, fma(query.x, key1_2.x, sum1))));
    sum2 = fma(query.w, key2_2.w, fma(query.z, key2_2.z, fma(query.y, key2_2.y, fma(query.x, key2_2.x, sum2))));
    sum3 = fma(query.w, key3_2.w, fma(query.z, key3_2.z, fma(query.y, key3_2.y, fma(query.x, key3_2.x, sum3))));
      }
    {
        let query = queryRows[0 + part + 12];
        sum0 = fma(query.w, key0_3.w, fma(query.z, key0_3.z, fma(query.y, key0_3.y, fma(query.x, key0_3.x, sum0))));
    sum1 = fma(query.w, key1_3.w, fma(query.z, key1_3.z, fma(query.y, key1_3.y, fma(query.x, key1_3.x, sum1))));
    sum2 = fma(query.w, key2_3.w, fma(query.z, key2_3.z, fma(query.y, key2_3.y, fma(query.x, key2_3.x, sum2))));
    sum3 = fma(query.w, key3_3.w, fma(query.z, key3_3.z, fma(query.y, key3_3.y, fma(query.x, key3_3.x, sum3))));
      }
      scoreParts[part * 324 + team * 80 + 0 * 17 + lane / 4 + 0] = sum0;
    scoreParts[part * 324 + team * 80 + 0 * 17 + lane / 4 + 4] = sum1;
    scoreParts[part * 324 + team * 80 + 0 * 17 + lane / 4 + 8] = sum2;
    scoreParts[part * 324 + team * 80 + 0 * 17 + lane / 4 + 12] = sum3;
    }
    {
      var sum0 = 0.0;
    var sum1 = 0.0;
    var sum2 = 0.0;
    var sum3 = 0.0;
      {
        let query = queryRows[16 + part + 0];
        sum0 = fma(query.w, key0_0.w, fma(query.z, key0_0.z, fma(query.y, key0_0.y, fma(query.x, key0_0.x, sum0))));
    sum1 = fma(query.w, key1_0.w, fma(query.z, key1_0.z, fma(query.y, key1_0.y, fma(query.x, key1_0.x, sum1))));
    sum2 = fma(query.w, key2_0.w, fma(query.z, key2_0.z, fma(query.y, key2_0.y, fma(query.x, key2_0.x, sum2))));
    sum3 = fma(query.w, key3_0.w, fma(query.z, key3_0.z, fma(query.y, key3_0.y, fma(query.x, key3_0.x, sum3))));
      }
    {
        let query = queryRows[16 + part + 4];
        sum0 = fma(query.w, key0_1.w, fma(query.z, key0_1.z, fma(query.y, key0_1.y, fma(query.x, key0_1.x, sum0))));
    sum1 = fma(query.w, key1_1.w, fma(query.z, key1_1.z, fma(query.y, key1_1.y, fma(query.x, key1_1.x, sum1))));
    sum2 = fma(query.w, key2_1.w, fma(query.z, key2_1.z, fma(query.y, key2_1.y, fma(query.x, key2_1.x, sum2))));
    sum3 = fma(query.w, key3_1.w, fma(query.z, key3_1.z, fma(query.y, key3_1.y, fma(query.x, key3_1.x, sum3))));
      }
    {
        let query = queryRows[16 + part + 8];
        sum0 = fma(query.w, key0_2.w, fma(query.z, key0_2.z, fma(query.y, key0_2.y, fma(query.x, key0_2.x, sum0))));
    sum1 = fma(query.w, key1_2.w, fma(query.z, key1_2.z, fma(query.y, key1_2.y, fma(query.x, key1_2.x, sum1))));
    sum2 = fma(query.w, key2_2.w, fma(query.z, key2_2.z, fma(query.y, key2_2.y, fma(query.x, key2_2.x, sum2))));
    sum3 = fma(query.w, key3_2.w, fma(query.z, key3_2.z, fma(query.y, key3_2.y, fma(query.x, key3_2.x, sum3))));
      }
    {
        let query = queryRows[16 + part + 12];
        sum0 = fma(query.w, key0_3.w, fma(query.z, key0_3.z, fma(query.y, key0_3.y, fma(query.x, key0_3.x, sum0))));
    sum1 = fma(query.w, key1_3.w, fma(query.z, key1_3.z, fma(query.y, key1_3.y, fma(query.x, key1_3.x, sum1))));
    sum2 = fma(query.w, key2_3.w, fma(query.z, key2_3.z, fma(query.y, key2_3.y, fma(query.x, key2_3.x, sum2))));
    sum3 = fma(query.w, key3_3.w, fma(query.z, key3_3.z, fma(query.y, key3_3.y, fma(query.x, key3_3.x, sum3))));
      }
      scoreParts[part * 324 + team * 80 + 1 * 17 + lane / 4 + 0] = sum0;
    scoreParts[part * 324 + team * 80 + 1 * 17 + lane / 4 + 4] = sum1;
    scoreParts[part * 324 + team * 80 + 1 * 17 + lane / 4 + 8] = sum2;
    scoreParts[part * 324 + team * 80 + 1 * 17 + lane / 4 + 12] = sum3;
    }
    {
      var sum0 = 0.0;
    var sum1 = 0.0;
    var sum2 = 0.0;
    var sum3 = 0.0;
      {
        let query = queryRows[32 + part + 0];
        sum0 = fma(query.w, key0_0.w, fma(query.z, key0_0.z, fma(query.y, key0_0.y, fma(query.x, key0_0.x, sum0))));
    sum1 = fma(query.w, key1_0.w, fma(query.z, key1_0.z, fma(query.y, key1_0.y, fma(query.x, key1_0.x, sum1))));
    sum2 = fma(query.w, key2_0.w, fma(query.z, key2_0.z, fma(query.y, key2_0.y, fma(query.x, key2_0.x, sum2))));
    sum3 = fma(query.w, key3_0.w, fma(query.z, key3_0.z, fma(query.y, key3_0.y, fma(query.x, key3_0.x, sum3))));
      }
    {
        let query = queryRows[32 + part + 4];
        sum0 = fma(query.w, key0_1.w, fma(query.z, key0_1.z, fma(query.y, key0_1.y, fma(query.x, key0_1.x, sum0))));
    sum1 = fma(query.w, key1_1.w, fma(query.z, key1_1.z, fma(query.y, key1_1.y, fma(query.x, key1_1.x, sum1))));
    sum2 = fma(query.w, key2_1.w, fma(query.z, key2_1.z, fma(query.y, key2_1.y, fma(query.x, key2_1.x, sum2))));
    sum3 = fma(query.w, key3_1.w, fma(query.z, key3_1.z, fma(query.y, key3_1.y, fma(query.x, key3_1.x, sum3))));
      }
    {
        let query = queryRows[32 + part + 8];
        sum0 = fma(query.w, key0_2.w, fma(query.z, key0_2.z, fma(query.y, key0_2.y, fma(query.x, key0_2.x, sum0))));
    sum1 = fma(query.w, key1_2.w, fma(query.z, key1_2.z, fma(query.y, key1_2.y, fma(query.x, key1_2.x, sum1))));
    sum2 = fma(query.w, key2_2.w, fma(query.z, key2_2.z, fma(query.y, key2_2.y, fma(query.x, key2_2.x, sum2))));
    sum3 = fma(query.w, key3_2.w, fma(query.z, key3_2.z, fma(query.y, key3_2.y, fma(query.x, key3_2.x, sum3))));
      }
    {
        let query = queryRows[32 + part + 12];
        sum0 = fma(query.w, key0_3.w, fma(query.z, key0_3.z, fma(query.y, key0_3.y, fma(query.x, key0_3.x, sum0))));
    sum1 = fma(query.w, key1_3.w, fma(query.z, key1_3.z, fma(query.y, key1_3.y, fma(query.x, key1_3.x, sum1))));
    sum2 = fma(query.w, key2_3.w, fma(query.z, key2_3.z, fma(query.y, key2_3.y, fma(query.x, key2_3.x, sum2))));
    sum3 = fma(query.w, key3_3.w, fma(query.z, key3_3.z, fma(query.y, key3_3.y, fma(query.x, key3_3.x, sum3))));
      }
      scoreParts[part * 324 + team * 80 + 2 * 17 + lane / 4 + 0] = sum0;
    scoreParts[part * 324 + team * 80 + 2 * 17 + lane / 4 + 4] = sum1;
    scoreParts[part * 324 + team * 80 + 2 * 17 + lane / 4 + 8] = sum2;
    scoreParts[part * 324 + team * 80 + 2 * 17 + lane / 4 + 12] = sum3;
    }
    {
      var sum0 = 0.0;
    var sum1 = 0.0;
    var sum2 = 0.0;
    var sum3 = 0.0;
      {
        let query = queryRows[48 + part + 0];
        sum0 = fma(query.w, key0_0.w, fma(query.z, key0_0.z, fma(query.y, key0_0.y, fma(query.x, key0_0.x, sum0))));
    sum1 = fma(query.w, key1_0.w, fma(query.z, key1_0.z, fma(query.y, key1_0.y, fma(query.x, key1_0.x, sum1))));
    sum2 = fma(query.w, key2_0.w, fma(query.z, key2_0.z, fma(query.y, key2_0.y, fma(query.x, key2_0.x, sum2))));
    sum3 = fma(query.w, key3_0.w, fma(query.z, key3_0.z, fma(query.y, key3_0.y, fma(query.x, key3_0.x, sum3))));
      }
    {
        let query = queryRows[48 + part + 4];
        sum0 = fma(query.w, key0_1.w, fma(query.z, key0_1.z, fma(query.y, key0_1.y, fma(query.x, key0_1.x, sum0))));
    sum1 = fma(query.w, key1_1.w, fma(query.z, key1_1.z, fma(query.y, key1_1.y, fma(query.x, key1_1.x, sum1))));
    sum2 = fma(query.w, key2_1.w, fma(query.z, key2_1.z, fma(query.y, key2_1.y, fma(query.x, key2_1.x, sum2))));
    sum3 = fma(query.w, key3_1.w, fma(query.z, key3_1.z, fma(query.y, key3_1.y, fma(query.x, key3_1.x, sum3))));
      }
    {
        let query = queryRows[48 + part + 8];
        sum0 = fma(query.w, key0_2.w, fma(query.z, key0_2.z, fma(query.y, key0_2.y, fma(query.x, key0_2.x, sum0))));
    sum1 = fma(query.w, key1_2.w, fma(query.z, key1_2.z, fma(query.y, key1_2.y, fma(query.x, key1_2.x, sum1))));
    sum2 = fma(query.w, key2_2.w, fma(query.z, key2_2.z, fma(query.y, key2_2.y, fma(query.x, key2_2.x, sum2))));
    sum3 = fma(query.w, key3_2.w, fma(query.z, key3_2.z, fma(query.y, key3_2.y, fma(query.x, key3_2.x, sum3))));
      }
    {
        let query = queryRows[48 + part + 12];
        sum0 = fma(query.w, key0_3.w, fma(query.z, key0_3.z, fma(query.y, key0_3.y, fma(query.x, key0_3.x, sum0))));
    sum1 = fma(query.w, key1_3.w, fma(query.z, key1_3.z, fma(query.y, key1_3.y, fma(query.x, key1_3.x, sum1))));
    sum2 = fma(query.w, key2_3.w, fma(query.z, key2_3.z, fma(query.y, key2_3.y, fma(query.x, key2_3.x, sum2))));
    sum3 = fma(query.w, key3_3.w, fma(query.z, key3_3.z, fma(query.y, key3_3.y, fma(query.x, key3_3.x, sum3))));
      }
      scoreParts[part * 324 + team * 80 + 3 * 17 + lane / 4 + 0] = sum0;
    scoreParts[part * 324 + team * 80 + 3 * 17 + lane / 4 + 4] = sum1;
    scoreParts[part * 324 + team * 80 + 3 * 17 + lane / 4 + 8] = sum2;
    scoreParts[part * 324 + team * 80 + 3 * 17 + lane / 4 + 12] = sum3;
    }
    // Barrier: whole products need the parts of others.
    workgroupBarrier();

    // 3. Scores, masked, and the weights of a group of keys.
    if (lane + 0 < 8) {
      let r = (lane + 0) % 4;
      let group = (lane + 0) / 4;
      let lastVisible = uniforms.queryOffset + (min(firstRow + r, endRow - 1)) % uniforms.queryLength;
      var groupMax = lowest;
      var score0 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 0;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 0);
        score0 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score0);
      }
    var score1 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 1;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 1);
        score1 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score1);
      }
    var score2 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 2;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 2);
        score2 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score2);
      }
    var score3 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 3;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 3);
        score3 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score3);
      }
    var score4 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 4;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 4);
        score4 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score4);
      }
    var score5 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 5;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 5);
        score5 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score5);
      }
    var score6 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 6;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 6);
        score6 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score6);
      }
    var score7 = masked;
      {
        let at = team * 80 + r * 17 + group * 8 + 7;
        let product = (scoreParts[at] + scoreParts[at + 324]) + (scoreParts[at + 648] + scoreParts[at + 972]);
        let position = positionIn(head, tile, team * 16 + group * 8 + 7);
        score7 = select(product, masked, position > lastVisible);
        groupMax = max(groupMax, score7);
      }
      let weight0 = exp2(score0 - groupMax);
    let weight1 = exp2(score1 - groupMax);
    let weight2 = exp2(score2 - groupMax);
    let weight3 = exp2(score3 - groupMax);
    let weight4 = exp2(score4 - groupMax);
    let weight5 = exp2(score5 - groupMax);
    let weight6 = exp2(score6 - groupMax);
    let weight7 = exp2(score7 - groupMax);
      weights[team * 17 + (r * 2 + group) * 2 + 0] = vec4<f32>(weight0, weight1, weight2, weight3);
    weights[team * 17 + (r * 2 + group) * 2 + 1] = vec4<f32>(weight4, weight5, weight6, weight7);
      groupSums[team * 9 + r * 2 + group] = vec2<f32>(groupMax, weight0 + weight1 + weight2 + weight3 + weight4 + weight5 + weight6 + weight7);
    }
    // Barrier: all invocations of a team read its weights. The parts of the next round are written behind it.
    workgroupBarrier();

    // 4. The weighted sum of values.
    let firstOfTeam = positionIn(head, tile, team * 16 + 0);
    let lastOfTeam = positionIn(head, tile, team * 16 + 15);
    if (lastOfTeam > seenByAll) {
      { let position = positionIn(head, tile, team * 16 + 0); if (position > seenByAll) { value0 = withhold(select(vec4<f32>(), value0, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 1); if (position > seenByAll) { value1 = withhold(select(vec4<f32>(), value1, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 2); if (position > seenByAll) { value2 = withhold(select(vec4<f32>(), value2, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 3); if (position > seenByAll) { value3 = withhold(select(vec4<f32>(), value3, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 4); if (position > seenByAll) { value4 = withhold(select(vec4<f32>(), value4, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 5); if (position > seenByAll) { value5 = withhold(select(vec4<f32>(), value5, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 6); if (position > seenByAll) { value6 = withhold(select(vec4<f32>(), value6, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 7); if (position > seenByAll) { value7 = withhold(select(vec4<f32>(), value7, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 8); if (position > seenByAll) { value8 = withhold(select(vec4<f32>(), value8, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 9); if (position > seenByAll) { value9 = withhold(select(vec4<f32>(), value9, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 10); if (position > seenByAll) { value10 = withhold(select(vec4<f32>(), value10, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 11); if (position > seenByAll) { value11 = withhold(select(vec4<f32>(), value11, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 12); if (position > seenByAll) { value12 = withhold(select(vec4<f32>(), value12, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 13); if (position > seenByAll) { value13 = withhold(select(vec4<f32>(), value13, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 14); if (position > seenByAll) { value14 = withhold(select(vec4<f32>(), value14, position != paddingPosition)); } }
    { let position = positionIn(head, tile, team * 16 + 15); if (position > seenByAll) { value15 = withhold(select(vec4<f32>(), value15, position != paddingPosition)); } }
    }
    {
      var newMax = state0.maximum;
      let group0 = groupSums[team * 9 + 0 * 2 + 0];
    let group1 = groupSums[team * 9 + 0 * 2 + 1];
      newMax = max(newMax, group0.x);
    newMax = max(newMax, group1.x);
      let rescale = exp2(state0.maximum - newMax);
      state0.maximum = newMax;
      state0.sum *= rescale;
      state0.values *= rescale;
      {
        let scale = exp2(group0.x - newMax);
        state0.sum = fma(scale, group0.y, state0.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (0 * 2 + 0) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value0, sum);
        sum = fma(vec4<f32>(weights0[1]), value1, sum);
        sum = fma(vec4<f32>(weights0[2]), value2, sum);
        sum = fma(vec4<f32>(weights0[3]), value3, sum);
    let weights1 = weights[team * 17 + (0 * 2 + 0) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value4, sum);
        sum = fma(vec4<f32>(weights1[1]), value5, sum);
        sum = fma(vec4<f32>(weights1[2]), value6, sum);
        sum = fma(vec4<f32>(weights1[3]), value7, sum);
        state0.values = fma(vec4<f32>(scale), sum, state0.values);
      }
    {
        let scale = exp2(group1.x - newMax);
        state0.sum = fma(scale, group1.y, state0.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (0 * 2 + 1) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value8, sum);
        sum = fma(vec4<f32>(weights0[1]), value9, sum);
        sum = fma(vec4<f32>(weights0[2]), value10, sum);
        sum = fma(vec4<f32>(weights0[3]), value11, sum);
    let weights1 = weights[team * 17 + (0 * 2 + 1) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value12, sum);
        sum = fma(vec4<f32>(weights1[1]), value13, sum);
        sum = fma(vec4<f32>(weights1[2]), value14, sum);
        sum = fma(vec4<f32>(weights1[3]), value15, sum);
        state0.values = fma(vec4<f32>(scale), sum, state0.values);
      }
    }
    {
      var newMax = state1.maximum;
      let group0 = groupSums[team * 9 + 1 * 2 + 0];
    let group1 = groupSums[team * 9 + 1 * 2 + 1];
      newMax = max(newMax, group0.x);
    newMax = max(newMax, group1.x);
      let rescale = exp2(state1.maximum - newMax);
      state1.maximum = newMax;
      state1.sum *= rescale;
      state1.values *= rescale;
      {
        let scale = exp2(group0.x - newMax);
        state1.sum = fma(scale, group0.y, state1.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (1 * 2 + 0) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value0, sum);
        sum = fma(vec4<f32>(weights0[1]), value1, sum);
        sum = fma(vec4<f32>(weights0[2]), value2, sum);
        sum = fma(vec4<f32>(weights0[3]), value3, sum);
    let weights1 = weights[team * 17 + (1 * 2 + 0) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value4, sum);
        sum = fma(vec4<f32>(weights1[1]), value5, sum);
        sum = fma(vec4<f32>(weights1[2]), value6, sum);
        sum = fma(vec4<f32>(weights1[3]), value7, sum);
        state1.values = fma(vec4<f32>(scale), sum, state1.values);
      }
    {
        let scale = exp2(group1.x - newMax);
        state1.sum = fma(scale, group1.y, state1.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (1 * 2 + 1) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value8, sum);
        sum = fma(vec4<f32>(weights0[1]), value9, sum);
        sum = fma(vec4<f32>(weights0[2]), value10, sum);
        sum = fma(vec4<f32>(weights0[3]), value11, sum);
    let weights1 = weights[team * 17 + (1 * 2 + 1) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value12, sum);
        sum = fma(vec4<f32>(weights1[1]), value13, sum);
        sum = fma(vec4<f32>(weights1[2]), value14, sum);
        sum = fma(vec4<f32>(weights1[3]), value15, sum);
        state1.values = fma(vec4<f32>(scale), sum, state1.values);
      }
    }
    {
      var newMax = state2.maximum;
      let group0 = groupSums[team * 9 + 2 * 2 + 0];
    let group1 = groupSums[team * 9 + 2 * 2 + 1];
      newMax = max(newMax, group0.x);
    newMax = max(newMax, group1.x);
      let rescale = exp2(state2.maximum - newMax);
      state2.maximum = newMax;
      state2.sum *= rescale;
      state2.values *= rescale;
      {
        let scale = exp2(group0.x - newMax);
        state2.sum = fma(scale, group0.y, state2.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (2 * 2 + 0) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value0, sum);
        sum = fma(vec4<f32>(weights0[1]), value1, sum);
        sum = fma(vec4<f32>(weights0[2]), value2, sum);
        sum = fma(vec4<f32>(weights0[3]), value3, sum);
    let weights1 = weights[team * 17 + (2 * 2 + 0) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value4, sum);
        sum = fma(vec4<f32>(weights1[1]), value5, sum);
        sum = fma(vec4<f32>(weights1[2]), value6, sum);
        sum = fma(vec4<f32>(weights1[3]), value7, sum);
        state2.values = fma(vec4<f32>(scale), sum, state2.values);
      }
    {
        let scale = exp2(group1.x - newMax);
        state2.sum = fma(scale, group1.y, state2.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (2 * 2 + 1) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value8, sum);
        sum = fma(vec4<f32>(weights0[1]), value9, sum);
        sum = fma(vec4<f32>(weights0[2]), value10, sum);
        sum = fma(vec4<f32>(weights0[3]), value11, sum);
    let weights1 = weights[team * 17 + (2 * 2 + 1) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value12, sum);
        sum = fma(vec4<f32>(weights1[1]), value13, sum);
        sum = fma(vec4<f32>(weights1[2]), value14, sum);
        sum = fma(vec4<f32>(weights1[3]), value15, sum);
        state2.values = fma(vec4<f32>(scale), sum, state2.values);
      }
    }
    {
      var newMax = state3.maximum;
      let group0 = groupSums[team * 9 + 3 * 2 + 0];
    let group1 = groupSums[team * 9 + 3 * 2 + 1];
      newMax = max(newMax, group0.x);
    newMax = max(newMax, group1.x);
      let rescale = exp2(state3.maximum - newMax);
      state3.maximum = newMax;
      state3.sum *= rescale;
      state3.values *= rescale;
      {
        let scale = exp2(group0.x - newMax);
        state3.sum = fma(scale, group0.y, state3.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (3 * 2 + 0) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value0, sum);
        sum = fma(vec4<f32>(weights0[1]), value1, sum);
        sum = fma(vec4<f32>(weights0[2]), value2, sum);
        sum = fma(vec4<f32>(weights0[3]), value3, sum);
    let weights1 = weights[team * 17 + (3 * 2 + 0) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value4, sum);
        sum = fma(vec4<f32>(weights1[1]), value5, sum);
        sum = fma(vec4<f32>(weights1[2]), value6, sum);
        sum = fma(vec4<f32>(weights1[3]), value7, sum);
        state3.values = fma(vec4<f32>(scale), sum, state3.values);
      }
    {
        let scale = exp2(group1.x - newMax);
        state3.sum = fma(scale, group1.y, state3.sum);
        var sum = vec4<f32>(0.0);
        let weights0 = weights[team * 17 + (3 * 2 + 1) * 2 + 0];
        sum = fma(vec4<f32>(weights0[0]), value8, sum);
        sum = fma(vec4<f32>(weights0[1]), value9, sum);
        sum = fma(vec4<f32>(weights0[2]), value10, sum);
        sum = fma(vec4<f32>(weights0[3]), value11, sum);
    let weights1 = weights[team * 17 + (3 * 2 + 1) * 2 + 1];
        sum = fma(vec4<f32>(weights1[0]), value12, sum);
        sum = fma(vec4<f32>(weights1[1]), value13, sum);
        sum = fma(vec4<f32>(weights1[2]), value14, sum);
        sum = fma(vec4<f32>(weights1[3]), value15, sum);
        state3.values = fma(vec4<f32>(scale), sum, state3.values);
      }
    }
  }

  // 5. The states of all teams.
  {
    var state = mergeLanes(state0);
    let row = firstRow + 0;
    if (local < 16 && row < endRow) {
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = uniforms.queryOffset + (row) % uniforms.queryLength;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { state.values += withheld0; }
      }
        }
      }
    }
  }
      { writeValues(head * uniforms.queryLength + row, chunk, vector, state.values); }
      if (local == 0) { writeSums(head * uniforms.queryLength + row, chunk, state.maximum, state.sum); }
    }
    // Barrier: the states of the next row replace these.
    workgroupBarrier();
  }
    {
    var state = mergeLanes(state1);
    let row = firstRow + 1;
    if (local < 16 && row < endRow) {
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = uniforms.queryOffset + (row) % uniforms.queryLength;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { state.values += withheld0; }
      }
        }
      }
    }
  }
      { writeValues(head * uniforms.queryLength + row, chunk, vector, state.values); }
      if (local == 0) { writeSums(head * uniforms.queryLength + row, chunk, state.maximum, state.sum); }
    }
    // Barrier: the states of the next row replace these.
    workgroupBarrier();
  }
    {
    var state = mergeLanes(state2);
    let row = firstRow + 2;
    if (local < 16 && row < endRow) {
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = uniforms.queryOffset + (row) % uniforms.queryLength;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { state.values += withheld0; }
      }
        }
      }
    }
  }
      { writeValues(head * uniforms.queryLength + row, chunk, vector, state.values); }
      if (local == 0) { writeSums(head * uniforms.queryLength + row, chunk, state.maximum, state.sum); }
    }
    // Barrier: the states of the next row replace these.
    workgroupBarrier();
  }
    {
    var state = mergeLanes(state3);
    let row = firstRow + 3;
    if (local < 16 && row < endRow) {
      if (atomicLoad(&anyWithheld[0]) != 0u) {
    for (var t = 0; t < keyTiles; t++) {
      let tile = keySlots(head, queryTileIndex, firstTile + t, firstTile + keyTiles);
      for (var slot = 0; slot < tileKeys; slot++) {
        let position = positionIn(head, tile, slot);
        if (position > seenByAll && position != paddingPosition) {
      let withheld0 = withheldOf(readValue(firstKeyRow + position, vector));
      {
        let lastVisible = uniforms.queryOffset + (row) % uniforms.queryLength;
        if (!(select(0.0, masked, position > lastVisible) == masked)) { state.values += withheld0; }
      }
        }
      }
    }
  }
      { writeValues(head * uniforms.queryLength + row, chunk, vector, state.values); }
      if (local == 0) { writeSums(head * uniforms.queryLength + row, chunk, state.maximum, state.sum); }
    }
    // Barrier: the states of the next row replace these.
    workgroupBarrier();
  }
}
