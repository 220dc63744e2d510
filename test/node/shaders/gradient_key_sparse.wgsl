// A workgroup computes the gradients of tileKeys keys and of their values, of one owner. It walks over tiles of
// tileQueries query rows of the blocks in its list: scores again, their weights times dy; gradients of the weights, the
// gradients of the scores times the queries.
//
// Invocation (x, y) computes the scores of keys y + r * 8 with query rows x + c * 8, and keeps, in registers, both sums of
// its keys for the vectors x + 8 * chunk of the head.
//
// Workgroup memory: ownedChunk and walkedChunk, 8 vectors of the keys and of the query rows at a time, for scores; of
// the rows' dy alone; of the values and of dy, for gradients of weights; at last of the query rows alone. weights, of a
// key in the query rows of an x: first those of attention, then the gradients of the scores.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}

const threads = 64;
const rows = 4;
const tileQueries = 32;
const tileKeys = 32;
const headVectors = 16;
const headChunks = 2;
const valueVectors = 16;
const valueChunks = 2;
const chunkStride = 9;
var<workgroup> ownedChunk : array<vec4<f32>, 288>;
var<workgroup> walkedChunk : array<vec4<f32>, 288>;
// Rows of the tensors that stand in the chunks; -1 for none.
var<workgroup> ownedRows : array<i32, 32>;
var<workgroup> walkedRows : array<i32, 32>;
// Rounds of the workgroup's walk: its barriers need a number that all invocations are known to share.
var<workgroup> roundCount : i32;
var<workgroup> weights : array<vec4<f32>, 288>;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 16 + vector]; }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }
fn writeKeyGradient(first : i32, row : i32, vector : i32, x : vec4<f32>) { result[first / 4 + row * 16 + vector] = x; }
fn writeValueGradient(first : i32, row : i32, vector : i32, x : vec4<f32>) { result[first / 4 + row * 16 + vector] = x; }

fn tilesIn(size : i32) -> i32 {
  return (size + tileKeys - 1) / tileKeys;
}


// Slots [first, end) in the permuted order that a key tile covers.
fn keySlots(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize);
  let block = tile / tilesPerBlock;
  let first = block * uniforms.blockSize + (tile % tilesPerBlock) * tileKeys;
  return vec2<i32>(first, min(min(first + tileKeys, (block + 1) * uniforms.blockSize), uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}

// Where the list of a key tile's block starts: its length, then its query blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.blockSize);
  return (head * uniforms.queryListsShape.z + block) * uniforms.queryListsShape.w;
}

fn countQueryTiles(head : i32, tile : i32, firstKey : i32) -> i32 {
  return queryLists[listStart(head, tile)] * tilesIn(uniforms.blockSize);
}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize);
  let block = queryLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileQueries;
  let end = min((block + 1) * uniforms.blockSize, uniforms.queryShape.z);
  return vec3<i32>(head, first, min(first + tileQueries, end));
}

fn main(index : i32) {
  let x = i32(localIndex) % 8;
  let y = i32(localIndex) / 8;
  let heads = uniforms.queryShape.y;
  let length = uniforms.queryShape.z;
  let keyLength = uniforms.keyShape.z;
  let owners = uniforms.owners;
  let owner = workgroupIndex() % owners;
  // First keys first: under a causal mask they have most queries, and a long workgroup should not start last. Workgroups
  // beyond those asked for find no keys.
  let keyTile = workgroupIndex() / owners;
  let slots = keySlots(keyTile);
  // Query head that shares the keys, the first of them.
  let firstHead = owner * (uniforms.queryShape.x * heads / owners);
  let firstKeyRow = keyRow(firstHead, heads, 0);
  if (localIndex == 0u) {
    roundCount = select(0, countQueryTiles(owner, keyTile, slots.x), slots.x < slots.y);
  }
  if (i32(localIndex) < tileKeys) {
    var row = -1;
    if (slots.x + i32(localIndex) < slots.y) {
      row = firstKeyRow + keyPosition(owner, slots.x + i32(localIndex));
    }
    ownedRows[localIndex] = row;
  }
  // A barrier too: the rows are read by all, also where there is no round.
  let queryTiles = workgroupUniformLoad(&roundCount);

  var keyGradient = array<array<vec4<f32>, 2>, rows>();
  var valueGradient = array<array<vec4<f32>, 2>, rows>();
  for (var t = 0; t < queryTiles; t++) {
    // 1. Which query rows: [queries.y, queries.z) of head queries.x.
    let queries = queryRows(owner, firstHead, keyTile, slots.x, t);
    let firstQueryRow = queries.x * length;
    if (i32(localIndex) < tileQueries) {
      let row = queries.y + i32(localIndex);
      walkedRows[localIndex] = select(-1, firstQueryRow + row, row < queries.z);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();

    // 2. Scores, and their weights: none where a row does not see a key. The initial values are needed: without them the
    // last round's stay.
    var scores = array<array<f32, rows>, rows>();
    for (var chunk = 0; chunk < headChunks; chunk++) {
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (ownedRows[slot] >= 0 && chunk * 8 + x < headVectors) {
        loaded = readKey(ownedRows[slot], chunk * 8 + x);
      }
      ownedChunk[slot * chunkStride + x] = loaded;
    }
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && chunk * 8 + x < headVectors) {
        loaded = readQuery(walkedRows[slot], chunk * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: products read rows that others loaded.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let owned0 = ownedChunk[(y + 0) * chunkStride + i];
      let owned1 = ownedChunk[(y + 8) * chunkStride + i];
      let owned2 = ownedChunk[(y + 16) * chunkStride + i];
      let owned3 = ownedChunk[(y + 24) * chunkStride + i];
      let walked0 = walkedChunk[(x + 0) * chunkStride + i];
      scores[0][0] += dot(owned0, walked0);
      scores[1][0] += dot(owned1, walked0);
      scores[2][0] += dot(owned2, walked0);
      scores[3][0] += dot(owned3, walked0);
      let walked1 = walkedChunk[(x + 8) * chunkStride + i];
      scores[0][1] += dot(owned0, walked1);
      scores[1][1] += dot(owned1, walked1);
      scores[2][1] += dot(owned2, walked1);
      scores[3][1] += dot(owned3, walked1);
      let walked2 = walkedChunk[(x + 16) * chunkStride + i];
      scores[0][2] += dot(owned0, walked2);
      scores[1][2] += dot(owned1, walked2);
      scores[2][2] += dot(owned2, walked2);
      scores[3][2] += dot(owned3, walked2);
      let walked3 = walkedChunk[(x + 24) * chunkStride + i];
      scores[0][3] += dot(owned0, walked3);
      scores[1][3] += dot(owned1, walked3);
      scores[2][3] += dot(owned2, walked3);
      scores[3][3] += dot(owned3, walked3);
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }
    var delta0 = 0.0;
    {
      let row = queries.y + x + 0;
      var logSum = 0.0;
      var last = -1;
      if (row < queries.z) {
        let at = 4 * (firstQueryRow + row);
        logSum = statistics[at];
        delta0 = statistics[at + 1];
        last = i32(statistics[at + 2]);
      }
      
      {
        let position = ownedRows[y + 0] - firstKeyRow;
        let score = uniforms.logitScale * scores[0][0];
        scores[0][0] = select(0.0, exp2(score - logSum), ownedRows[y + 0] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 8] - firstKeyRow;
        let score = uniforms.logitScale * scores[1][0];
        scores[1][0] = select(0.0, exp2(score - logSum), ownedRows[y + 8] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 16] - firstKeyRow;
        let score = uniforms.logitScale * scores[2][0];
        scores[2][0] = select(0.0, exp2(score - logSum), ownedRows[y + 16] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 24] - firstKeyRow;
        let score = uniforms.logitScale * scores[3][0];
        scores[3][0] = select(0.0, exp2(score - logSum), ownedRows[y + 24] >= 0 && position <= last);
      }
    }
    var delta1 = 0.0;
    {
      let row = queries.y + x + 8;
      var logSum = 0.0;
      var last = -1;
      if (row < queries.z) {
        let at = 4 * (firstQueryRow + row);
        logSum = statistics[at];
        delta1 = statistics[at + 1];
        last = i32(statistics[at + 2]);
      }
      
      {
        let position = ownedRows[y + 0] - firstKeyRow;
        let score = uniforms.logitScale * scores[0][1];
        scores[0][1] = select(0.0, exp2(score - logSum), ownedRows[y + 0] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 8] - firstKeyRow;
        let score = uniforms.logitScale * scores[1][1];
        scores[1][1] = select(0.0, exp2(score - logSum), ownedRows[y + 8] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 16] - firstKeyRow;
        let score = uniforms.logitScale * scores[2][1];
        scores[2][1] = select(0.0, exp2(score - logSum), ownedRows[y + 16] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 24] - firstKeyRow;
        let score = uniforms.logitScale * scores[3][1];
        scores[3][1] = select(0.0, exp2(score - logSum), ownedRows[y + 24] >= 0 && position <= last);
      }
    }
    var delta2 = 0.0;
    {
      let row = queries.y + x + 16;
      var logSum = 0.0;
      var last = -1;
      if (row < queries.z) {
        let at = 4 * (firstQueryRow + row);
        logSum = statistics[at];
        delta2 = statistics[at + 1];
        last = i32(statistics[at + 2]);
      }
      
      {
        let position = ownedRows[y + 0] - firstKeyRow;
        let score = uniforms.logitScale * scores[0][2];
        scores[0][2] = select(0.0, exp2(score - logSum), ownedRows[y + 0] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 8] - firstKeyRow;
        let score = uniforms.logitScale * scores[1][2];
        scores[1][2] = select(0.0, exp2(score - logSum), ownedRows[y + 8] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 16] - firstKeyRow;
        let score = uniforms.logitScale * scores[2][2];
        scores[2][2] = select(0.0, exp2(score - logSum), ownedRows[y + 16] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 24] - firstKeyRow;
        let score = uniforms.logitScale * scores[3][2];
        scores[3][2] = select(0.0, exp2(score - logSum), ownedRows[y + 24] >= 0 && position <= last);
      }
    }
    var delta3 = 0.0;
    {
      let row = queries.y + x + 24;
      var logSum = 0.0;
      var last = -1;
      if (row < queries.z) {
        let at = 4 * (firstQueryRow + row);
        logSum = statistics[at];
        delta3 = statistics[at + 1];
        last = i32(statistics[at + 2]);
      }
      
      {
        let position = ownedRows[y + 0] - firstKeyRow;
        let score = uniforms.logitScale * scores[0][3];
        scores[0][3] = select(0.0, exp2(score - logSum), ownedRows[y + 0] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 8] - firstKeyRow;
        let score = uniforms.logitScale * scores[1][3];
        scores[1][3] = select(0.0, exp2(score - logSum), ownedRows[y + 8] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 16] - firstKeyRow;
        let score = uniforms.logitScale * scores[2][3];
        scores[2][3] = select(0.0, exp2(score - logSum), ownedRows[y + 16] >= 0 && position <= last);
      }
    {
        let position = ownedRows[y + 24] - firstKeyRow;
        let score = uniforms.logitScale * scores[3][3];
        scores[3][3] = select(0.0, exp2(score - logSum), ownedRows[y + 24] >= 0 && position <= last);
      }
    }
    weights[(y + 0) * 9 + x] = vec4<f32>(scores[0][0], scores[0][1], scores[0][2], scores[0][3]);
    weights[(y + 8) * 9 + x] = vec4<f32>(scores[1][0], scores[1][1], scores[1][2], scores[1][3]);
    weights[(y + 16) * 9 + x] = vec4<f32>(scores[2][0], scores[2][1], scores[2][2], scores[2][3]);
    weights[(y + 24) * 9 + x] = vec4<f32>(scores[3][0], scores[3][1], scores[3][2], scores[3][3]);
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 0 * 8 + x < valueVectors) {
        loaded = readDy(walkedRows[slot], 0 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      valueGradient[0][0] += weights0[0] * walked0;
      valueGradient[1][0] += weights1[0] * walked0;
      valueGradient[2][0] += weights2[0] * walked0;
      valueGradient[3][0] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      valueGradient[0][0] += weights0[1] * walked1;
      valueGradient[1][0] += weights1[1] * walked1;
      valueGradient[2][0] += weights2[1] * walked1;
      valueGradient[3][0] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      valueGradient[0][0] += weights0[2] * walked2;
      valueGradient[1][0] += weights1[2] * walked2;
      valueGradient[2][0] += weights2[2] * walked2;
      valueGradient[3][0] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      valueGradient[0][0] += weights0[3] * walked3;
      valueGradient[1][0] += weights1[3] * walked3;
      valueGradient[2][0] += weights2[3] * walked3;
      valueGradient[3][0] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 1 * 8 + x < valueVectors) {
        loaded = readDy(walkedRows[slot], 1 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      valueGradient[0][1] += weights0[0] * walked0;
      valueGradient[1][1] += weights1[0] * walked0;
      valueGradient[2][1] += weights2[0] * walked0;
      valueGradient[3][1] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      valueGradient[0][1] += weights0[1] * walked1;
      valueGradient[1][1] += weights1[1] * walked1;
      valueGradient[2][1] += weights2[1] * walked1;
      valueGradient[3][1] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      valueGradient[0][1] += weights0[2] * walked2;
      valueGradient[1][1] += weights1[2] * walked2;
      valueGradient[2][1] += weights2[2] * walked2;
      valueGradient[3][1] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      valueGradient[0][1] += weights0[3] * walked3;
      valueGradient[1][1] += weights1[3] * walked3;
      valueGradient[2][1] += weights2[3] * walked3;
      valueGradient[3][1] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();

    // 3. Gradients of the weights, and of the scores.
    var products = array<array<f32, rows>, rows>();
    for (var chunk = 0; chunk < valueChunks; chunk++) {
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (ownedRows[slot] >= 0 && chunk * 8 + x < valueVectors) {
        loaded = readValue(ownedRows[slot], chunk * 8 + x);
      }
      ownedChunk[slot * chunkStride + x] = loaded;
    }
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && chunk * 8 + x < valueVectors) {
        loaded = readDy(walkedRows[slot], chunk * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: products read rows that others loaded.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let owned0 = ownedChunk[(y + 0) * chunkStride + i];
      let owned1 = ownedChunk[(y + 8) * chunkStride + i];
      let owned2 = ownedChunk[(y + 16) * chunkStride + i];
      let owned3 = ownedChunk[(y + 24) * chunkStride + i];
      let walked0 = walkedChunk[(x + 0) * chunkStride + i];
      products[0][0] += dot(owned0, walked0);
      products[1][0] += dot(owned1, walked0);
      products[2][0] += dot(owned2, walked0);
      products[3][0] += dot(owned3, walked0);
      let walked1 = walkedChunk[(x + 8) * chunkStride + i];
      products[0][1] += dot(owned0, walked1);
      products[1][1] += dot(owned1, walked1);
      products[2][1] += dot(owned2, walked1);
      products[3][1] += dot(owned3, walked1);
      let walked2 = walkedChunk[(x + 16) * chunkStride + i];
      products[0][2] += dot(owned0, walked2);
      products[1][2] += dot(owned1, walked2);
      products[2][2] += dot(owned2, walked2);
      products[3][2] += dot(owned3, walked2);
      let walked3 = walkedChunk[(x + 24) * chunkStride + i];
      products[0][3] += dot(owned0, walked3);
      products[1][3] += dot(owned1, walked3);
      products[2][3] += dot(owned2, walked3);
      products[3][3] += dot(owned3, walked3);
    }
    // Barrier: the next chunk overwrites this one.
    workgroupBarrier();
  }
    weights[(y + 0) * 9 + x] = vec4<f32>(select(0.0, scores[0][0] * (products[0][0] - delta0), scores[0][0] != 0.0), select(0.0, scores[0][1] * (products[0][1] - delta1), scores[0][1] != 0.0), select(0.0, scores[0][2] * (products[0][2] - delta2), scores[0][2] != 0.0), select(0.0, scores[0][3] * (products[0][3] - delta3), scores[0][3] != 0.0));
    weights[(y + 8) * 9 + x] = vec4<f32>(select(0.0, scores[1][0] * (products[1][0] - delta0), scores[1][0] != 0.0), select(0.0, scores[1][1] * (products[1][1] - delta1), scores[1][1] != 0.0), select(0.0, scores[1][2] * (products[1][2] - delta2), scores[1][2] != 0.0), select(0.0, scores[1][3] * (products[1][3] - delta3), scores[1][3] != 0.0));
    weights[(y + 16) * 9 + x] = vec4<f32>(select(0.0, scores[2][0] * (products[2][0] - delta0), scores[2][0] != 0.0), select(0.0, scores[2][1] * (products[2][1] - delta1), scores[2][1] != 0.0), select(0.0, scores[2][2] * (products[2][2] - delta2), scores[2][2] != 0.0), select(0.0, scores[2][3] * (products[2][3] - delta3), scores[2][3] != 0.0));
    weights[(y + 24) * 9 + x] = vec4<f32>(select(0.0, scores[3][0] * (products[3][0] - delta0), scores[3][0] != 0.0), select(0.0, scores[3][1] * (products[3][1] - delta1), scores[3][1] != 0.0), select(0.0, scores[3][2] * (products[3][2] - delta2), scores[3][2] != 0.0), select(0.0, scores[3][3] * (products[3][3] - delta3), scores[3][3] != 0.0));
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 0 * 8 + x < headVectors) {
        loaded = readQuery(walkedRows[slot], 0 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      keyGradient[0][0] += weights0[0] * walked0;
      keyGradient[1][0] += weights1[0] * walked0;
      keyGradient[2][0] += weights2[0] * walked0;
      keyGradient[3][0] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      keyGradient[0][0] += weights0[1] * walked1;
      keyGradient[1][0] += weights1[1] * walked1;
      keyGradient[2][0] += weights2[1] * walked1;
      keyGradient[3][0] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      keyGradient[0][0] += weights0[2] * walked2;
      keyGradient[1][0] += weights1[2] * walked2;
      keyGradient[2][0] += weights2[2] * walked2;
      keyGradient[3][0] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      keyGradient[0][0] += weights0[3] * walked3;
      keyGradient[1][0] += weights1[3] * walked3;
      keyGradient[2][0] += weights2[3] * walked3;
      keyGradient[3][0] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();
    for (var slot = y; slot < tileQueries; slot += 8) {
      var loaded = vec4<f32>(0.0);
      if (walkedRows[slot] >= 0 && 1 * 8 + x < headVectors) {
        loaded = readQuery(walkedRows[slot], 1 * 8 + x);
      }
      walkedChunk[slot * chunkStride + x] = loaded;
    }
    // Barrier: sums read weights and rows of others.
    workgroupBarrier();
    for (var i = 0; i < 8; i++) {
      let weights0 = weights[(y + 0) * 9 + i];
      let weights1 = weights[(y + 8) * 9 + i];
      let weights2 = weights[(y + 16) * 9 + i];
      let weights3 = weights[(y + 24) * 9 + i];
      let walked0 = walkedChunk[(i + 0) * chunkStride + x];
      keyGradient[0][1] += weights0[0] * walked0;
      keyGradient[1][1] += weights1[0] * walked0;
      keyGradient[2][1] += weights2[0] * walked0;
      keyGradient[3][1] += weights3[0] * walked0;
      let walked1 = walkedChunk[(i + 8) * chunkStride + x];
      keyGradient[0][1] += weights0[1] * walked1;
      keyGradient[1][1] += weights1[1] * walked1;
      keyGradient[2][1] += weights2[1] * walked1;
      keyGradient[3][1] += weights3[1] * walked1;
      let walked2 = walkedChunk[(i + 16) * chunkStride + x];
      keyGradient[0][1] += weights0[2] * walked2;
      keyGradient[1][1] += weights1[2] * walked2;
      keyGradient[2][1] += weights2[2] * walked2;
      keyGradient[3][1] += weights3[2] * walked2;
      let walked3 = walkedChunk[(i + 24) * chunkStride + x];
      keyGradient[0][1] += weights0[3] * walked3;
      keyGradient[1][1] += weights1[3] * walked3;
      keyGradient[2][1] += weights2[3] * walked3;
      keyGradient[3][1] += weights3[3] * walked3;
    }
    // Barrier: the next chunk overwrites this one, the next weights these.
    workgroupBarrier();
  }

  let firstGradientRow = owner * keyLength - firstKeyRow;
  let firstValue = owners * keyLength * 64;
  if (ownedRows[y + 0] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 0], 0 + x, uniforms.scale * keyGradient[0][0]); }
    if (ownedRows[y + 8] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 8], 0 + x, uniforms.scale * keyGradient[1][0]); }
    if (ownedRows[y + 16] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 16], 0 + x, uniforms.scale * keyGradient[2][0]); }
    if (ownedRows[y + 24] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 24], 0 + x, uniforms.scale * keyGradient[3][0]); }
    if (ownedRows[y + 0] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 0], 8 + x, uniforms.scale * keyGradient[0][1]); }
    if (ownedRows[y + 8] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 8], 8 + x, uniforms.scale * keyGradient[1][1]); }
    if (ownedRows[y + 16] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 16], 8 + x, uniforms.scale * keyGradient[2][1]); }
    if (ownedRows[y + 24] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + 24], 8 + x, uniforms.scale * keyGradient[3][1]); }
  if (ownedRows[y + 0] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 0], 0 + x, valueGradient[0][0]); }
    if (ownedRows[y + 8] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 8], 0 + x, valueGradient[1][0]); }
    if (ownedRows[y + 16] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 16], 0 + x, valueGradient[2][0]); }
    if (ownedRows[y + 24] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 24], 0 + x, valueGradient[3][0]); }
    if (ownedRows[y + 0] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 0], 8 + x, valueGradient[0][1]); }
    if (ownedRows[y + 8] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 8], 8 + x, valueGradient[1][1]); }
    if (ownedRows[y + 16] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 16], 8 + x, valueGradient[2][1]); }
    if (ownedRows[y + 24] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + 24], 8 + x, valueGradient[3][1]); }
}
