// A workgroup takes the keys of one segment of one head, and the rows that order them, in tiles of tileQueries. It walks over the
// segment in tiles of tileKeys keys, twice: for the sum of each row, and for the weights, added up by key.
//
// Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x in workgroup
// memory, and so are the weights of its columns over y.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
const threads = 128;
const threadsX = 16;
const threadsY = 8;
const rows = 4;
const columns = 2;
const tileQueries = 32;
const tileKeys = 32;
const tileStride = 17;
// Score of a key that a row must not see; finite, because WGSL need not support infinities.
const masked = -3.4e38f;
// Where the maximum of a row starts: so far above it that a masked score has no weight, also in a row without others.
const lowest = -1e38f;

var<workgroup> queryTile : array<vec4<f32>, 544>;
var<workgroup> keyTile : array<vec4<f32>, 544>;

fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }

fn keyRow(head : i32, position : i32) -> i32 {
  let heads = uniforms.heads;
  let keyHeads = uniforms.keyValueHeads;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyLength + position;
}
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyLength);
}

// Loads query rows [firstRow, endRow) of a head, scaled; zeros follow.
fn loadQueryTile(head : i32, firstRow : i32, endRow : i32) {
  let local = i32(min(localIndex, 127u));
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
}

// Loads the keys [first, end) of a head, in their own order; zeros follow.
fn loadKeyTile(head : i32, first : i32, end : i32) {
  let firstKeyRow = keyRow(head, first);
  let local = i32(min(localIndex, 127u));
  {
    var fetched = array<vec4<f32>, 4>();
    if (first + (local / 16) < end) { fetched[0] = readKey(firstKeyRow + (local / 16), local % 16); }
    if (first + ((local + 128) / 16) < end) { fetched[1] = readKey(firstKeyRow + ((local + 128) / 16), (local + 128) % 16); }
    if (first + ((local + 256) / 16) < end) { fetched[2] = readKey(firstKeyRow + ((local + 256) / 16), (local + 256) % 16); }
    if (first + ((local + 384) / 16) < end) { fetched[3] = readKey(firstKeyRow + ((local + 384) / 16), (local + 384) % 16); }
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
    }
}

// This invocation's part of queryTile · keyTileᵀ.
fn tileScores(column : i32, row : i32) -> array<array<f32, columns>, rows> {
  // In range, as the compiler can see (see localOf).
  let x = i32(min(u32(column), threadsX - 1u));
  let y = i32(min(u32(row), threadsY - 1u));
  var scores : array<array<f32, columns>, rows>;
  for (var s = 0; s < 4; s++) {
      let i = s * 4;
      {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 0];
    let a2 = queryTile[(y + 2 * threadsY) * tileStride + i + 0];
    let a3 = queryTile[(y + 3 * threadsY) * tileStride + i + 0];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
    scores[2][0] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][0]))));
    scores[3][0] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
    scores[2][1] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][1]))));
    scores[3][1] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 1];
    let a2 = queryTile[(y + 2 * threadsY) * tileStride + i + 1];
    let a3 = queryTile[(y + 3 * threadsY) * tileStride + i + 1];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
    scores[2][0] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][0]))));
    scores[3][0] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
    scores[2][1] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][1]))));
    scores[3][1] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 2];
    let a2 = queryTile[(y + 2 * threadsY) * tileStride + i + 2];
    let a3 = queryTile[(y + 3 * threadsY) * tileStride + i + 2];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
    scores[2][0] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][0]))));
    scores[3][0] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
    scores[2][1] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][1]))));
    scores[3][1] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][1]))));
      }
      }
    {
      let a0 = queryTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = queryTile[(y + 1 * threadsY) * tileStride + i + 3];
    let a2 = queryTile[(y + 2 * threadsY) * tileStride + i + 3];
    let a3 = queryTile[(y + 3 * threadsY) * tileStride + i + 3];
      {
        let b = keyTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
    scores[2][0] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][0]))));
    scores[3][0] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][0]))));
      }
    {
        let b = keyTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
    scores[2][1] = fma(a2.w, b.w, fma(a2.z, b.z, fma(a2.y, b.y, fma(a2.x, b.x, scores[2][1]))));
    scores[3][1] = fma(a3.w, b.w, fma(a3.z, b.z, fma(a3.y, b.y, fma(a3.x, b.x, scores[3][1]))));
      }
      }
    }
  return scores;
}
// By its series where the quotient would lose digits. The power of two is at most 1: tanh of WGSL may overflow.
fn softTanh(x : f32) -> f32 {
  let power = exp2(-2.8853900817779268f * abs(x));
  let square = x * x;
  let series = x * (1.0 + square * (-0.3333333333333333f + square * (0.13333333333333333f - 0.05396825396825397f * square)));
  return select(sign(x) * (1.0 - power) / (1.0 + power), series, abs(x) < 0.25);
}

fn cappedScore(score : f32) -> f32 {
  return uniforms.softCap * softTanh(score * uniforms.inverseSoftCap);
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
  return select(score + 1.4426950408889634f * select(x, -6e37f, x < -6e37f), masked, bitcast<u32>(x) == 0xff800000u);
}
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}
// Maximum and sum of a row in an x.
var<workgroup> partials : array<vec2<f32>, 512>;
var<workgroup> columnPartials : array<f32, 256>;

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 4);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 4);
  let permutedLength = uniforms.permutedLength;
  let segments = permutedLength / uniforms.segmentSize;
  let segment = workgroupIndex() % segments;
  let head = workgroupIndex() / segments;
  let exists = head < uniforms.batch * uniforms.heads;
  let firstKey = segment * uniforms.segmentSize;
  let length = keyEnd(min(head, uniforms.batch * uniforms.heads - 1));
  let endKey = select(0, min(firstKey + uniforms.segmentSize, length), exists);
  let lastRow = clamp(length - uniforms.queryOffset, 0, uniforms.queryLength);
  let wanted = max(0, firstKey + uniforms.segmentSize - uniforms.queryOffset);
  let firstOrderRow = min(wanted, lastRow);
  let endOrderRow = min(wanted + 32, lastRow);

  // All workgroups take the same number of rounds, as barriers demand; past the last row or key a tile is empty.
  for (var rowTile = 0; rowTile < 32; rowTile += tileQueries) {
    let firstRow = firstOrderRow + rowTile;
    loadQueryTile(head, firstRow, select(0, endOrderRow, exists));
    var rowMax = vec4<f32>(lowest);
    var rowSum = vec4<f32>(0.0);
    for (var offset = 0; offset < uniforms.segmentSize; offset += tileKeys) {
      loadKeyTile(head, firstKey + offset, endKey);
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      var scores = tileScores(x, y);
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 0 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 0 * threadsY));
        scores[0][0] = maskedScore(cappedScore(scores[0][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[0][1] = maskedScore(cappedScore(scores[0][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 1 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 1 * threadsY));
        scores[1][0] = maskedScore(cappedScore(scores[1][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[1][1] = maskedScore(cappedScore(scores[1][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 2 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 2 * threadsY));
        scores[2][0] = maskedScore(cappedScore(scores[2][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[2][1] = maskedScore(cappedScore(scores[2][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 3 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 3 * threadsY));
        scores[3][0] = maskedScore(cappedScore(scores[3][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[3][1] = maskedScore(cappedScore(scores[3][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      if (firstKey + offset + x + 0 * threadsX >= endKey) {
        scores[0][0] = masked; scores[1][0] = masked; scores[2][0] = masked; scores[3][0] = masked;
      }
      if (firstKey + offset + x + 1 * threadsX >= endKey) {
        scores[0][1] = masked; scores[1][1] = masked; scores[2][1] = masked; scores[3][1] = masked;
      }
      {
      var newMax = rowMax[0];
      newMax = max(newMax, scores[0][0]);
    newMax = max(newMax, scores[0][1]);
      rowSum[0] = fma(rowSum[0], exp2(rowMax[0] - newMax), exp2(scores[0][0] - newMax) + exp2(scores[0][1] - newMax));
      rowMax[0] = newMax;
    }
    {
      var newMax = rowMax[1];
      newMax = max(newMax, scores[1][0]);
    newMax = max(newMax, scores[1][1]);
      rowSum[1] = fma(rowSum[1], exp2(rowMax[1] - newMax), exp2(scores[1][0] - newMax) + exp2(scores[1][1] - newMax));
      rowMax[1] = newMax;
    }
    {
      var newMax = rowMax[2];
      newMax = max(newMax, scores[2][0]);
    newMax = max(newMax, scores[2][1]);
      rowSum[2] = fma(rowSum[2], exp2(rowMax[2] - newMax), exp2(scores[2][0] - newMax) + exp2(scores[2][1] - newMax));
      rowMax[2] = newMax;
    }
    {
      var newMax = rowMax[3];
      newMax = max(newMax, scores[3][0]);
    newMax = max(newMax, scores[3][1]);
      rowSum[3] = fma(rowSum[3], exp2(rowMax[3] - newMax), exp2(scores[3][0] - newMax) + exp2(scores[3][1] - newMax));
      rowMax[3] = newMax;
    }
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();
    }
    partials[(y + 0 * threadsY) * threadsX + x] = vec2<f32>(rowMax[0], rowSum[0]);
    partials[(y + 1 * threadsY) * threadsX + x] = vec2<f32>(rowMax[1], rowSum[1]);
    partials[(y + 2 * threadsY) * threadsX + x] = vec2<f32>(rowMax[2], rowSum[2]);
    partials[(y + 3 * threadsY) * threadsX + x] = vec2<f32>(rowMax[3], rowSum[3]);
    // Barrier: the sum of a row needs the parts of all x.
    workgroupBarrier();
    var logSum : vec4<f32>;
    {
      let first = (y + 0 * threadsY) * threadsX;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + i].x);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + i].y * exp2(partials[first + i].x - total);
      }
      logSum[0] = select(total + logOfSum(sum), lowest, sum == 0.0);
    }
    {
      let first = (y + 1 * threadsY) * threadsX;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + i].x);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + i].y * exp2(partials[first + i].x - total);
      }
      logSum[1] = select(total + logOfSum(sum), lowest, sum == 0.0);
    }
    {
      let first = (y + 2 * threadsY) * threadsX;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + i].x);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + i].y * exp2(partials[first + i].x - total);
      }
      logSum[2] = select(total + logOfSum(sum), lowest, sum == 0.0);
    }
    {
      let first = (y + 3 * threadsY) * threadsX;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + i].x);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + i].y * exp2(partials[first + i].x - total);
      }
      logSum[3] = select(total + logOfSum(sum), lowest, sum == 0.0);
    }

    for (var offset = 0; offset < uniforms.segmentSize; offset += tileKeys) {
      loadKeyTile(head, firstKey + offset, endKey);
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      var scores = tileScores(x, y);
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 0 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 0 * threadsY));
        scores[0][0] = maskedScore(cappedScore(scores[0][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[0][1] = maskedScore(cappedScore(scores[0][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 1 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 1 * threadsY));
        scores[1][0] = maskedScore(cappedScore(scores[1][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[1][1] = maskedScore(cappedScore(scores[1][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 2 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 2 * threadsY));
        scores[2][0] = maskedScore(cappedScore(scores[2][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[2][1] = maskedScore(cappedScore(scores[2][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + (firstRow + y + 3 * threadsY);
        let maskStart = maskRow(head, (firstRow + y + 3 * threadsY));
        scores[3][0] = maskedScore(cappedScore(scores[3][0]) - slope * f32(slopedPosition - ((firstKey + offset + x + 0 * threadsX))), maskStart, (firstKey + offset + x + 0 * threadsX));
        scores[3][1] = maskedScore(cappedScore(scores[3][1]) - slope * f32(slopedPosition - ((firstKey + offset + x + 1 * threadsX))), maskStart, (firstKey + offset + x + 1 * threadsX));
      }
      {
        var sum = 0.0;
        sum += select(0.0, exp2(scores[0][0] - logSum[0]), firstRow + y + 0 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[1][0] - logSum[1]), firstRow + y + 1 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[2][0] - logSum[2]), firstRow + y + 2 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[3][0] - logSum[3]), firstRow + y + 3 * threadsY < endOrderRow);
        columnPartials[y * tileKeys + x + 0 * threadsX] = sum;
      }
      {
        var sum = 0.0;
        sum += select(0.0, exp2(scores[0][1] - logSum[0]), firstRow + y + 0 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[1][1] - logSum[1]), firstRow + y + 1 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[2][1] - logSum[2]), firstRow + y + 2 * threadsY < endOrderRow);
        sum += select(0.0, exp2(scores[3][1] - logSum[3]), firstRow + y + 3 * threadsY < endOrderRow);
        columnPartials[y * tileKeys + x + 1 * threadsX] = sum;
      }
      // Barrier: a key's score needs the parts of all y; and no key is read any more.
      workgroupBarrier();
      for (var slot = local; slot < tileKeys; slot += threads) {
        var sum = 0.0;
        for (var i = 0; i < threadsY; i++) {
          sum += columnPartials[i * tileKeys + slot];
        }
        if (exists && offset + slot < uniforms.segmentSize) {
          let at = head * permutedLength + firstKey + offset + slot;
          let mean = select(0.0, sum / f32(max(1, endOrderRow - firstOrderRow)), firstKey + offset + slot < endKey);
          result[at] = mean;
        }
      }
    }
    // Barrier: the next rows replace these, and their parts.
    workgroupBarrier();
  }
}
