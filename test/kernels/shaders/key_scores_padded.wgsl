// A workgroup takes tileKeys keys of one head, loaded once, and walks over the proxy rows in tiles of tileQueries.
// Invocation (x, y) adds up, in registers, the weights of its columns over its own rows; they are added up over y once
// at the end, in workgroup memory.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}

const threads = 128;
const threadsX = 16;
const threadsY = 8;
const rows = 4;
const columns = 2;
const tileQueries = 32;
const tileKeys = 32;
const headVectors = 16;
const tileStride = 17;
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
    { queryTile[(load0 / headVectors) * tileStride + load0 % headVectors] = x0; }
    { queryTile[(load1 / headVectors) * tileStride + load1 % headVectors] = x1; }
    { queryTile[(load2 / headVectors) * tileStride + load2 % headVectors] = x2; }
    { queryTile[(load3 / headVectors) * tileStride + load3 % headVectors] = x3; }
}

// This invocation's part of queryTile · keyTileᵀ; as fma by component, since a dot product would be added in a fifth step.
fn tileScores(x : i32, y : i32) -> array<array<f32, columns>, rows> {
  var scores : array<array<f32, columns>, rows>;
  for (var i = 0; i < headVectors; i += 4) {
    {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 0];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 0];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 0];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 0];
      let k0 = keyTile[(x + 0 * threadsX) * tileStride + i + 0];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * tileStride + i + 0];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 1];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 1];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 1];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 1];
      let k0 = keyTile[(x + 0 * threadsX) * tileStride + i + 1];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * tileStride + i + 1];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 2];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 2];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 2];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 2];
      let k0 = keyTile[(x + 0 * threadsX) * tileStride + i + 2];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * tileStride + i + 2];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
    {
      let q0 = queryTile[(y + 0 * threadsY) * tileStride + i + 3];
    let q1 = queryTile[(y + 1 * threadsY) * tileStride + i + 3];
    let q2 = queryTile[(y + 2 * threadsY) * tileStride + i + 3];
    let q3 = queryTile[(y + 3 * threadsY) * tileStride + i + 3];
      let k0 = keyTile[(x + 0 * threadsX) * tileStride + i + 3];
      scores[0][0] = fma(q0.w, k0.w, fma(q0.z, k0.z, fma(q0.y, k0.y, fma(q0.x, k0.x, scores[0][0]))));
    scores[1][0] = fma(q1.w, k0.w, fma(q1.z, k0.z, fma(q1.y, k0.y, fma(q1.x, k0.x, scores[1][0]))));
    scores[2][0] = fma(q2.w, k0.w, fma(q2.z, k0.z, fma(q2.y, k0.y, fma(q2.x, k0.x, scores[2][0]))));
    scores[3][0] = fma(q3.w, k0.w, fma(q3.z, k0.z, fma(q3.y, k0.y, fma(q3.x, k0.x, scores[3][0]))));
    let k1 = keyTile[(x + 1 * threadsX) * tileStride + i + 3];
      scores[0][1] = fma(q0.w, k1.w, fma(q0.z, k1.z, fma(q0.y, k1.y, fma(q0.x, k1.x, scores[0][1]))));
    scores[1][1] = fma(q1.w, k1.w, fma(q1.z, k1.z, fma(q1.y, k1.y, fma(q1.x, k1.x, scores[1][1]))));
    scores[2][1] = fma(q2.w, k1.w, fma(q2.z, k1.z, fma(q2.y, k1.y, fma(q2.x, k1.x, scores[2][1]))));
    scores[3][1] = fma(q3.w, k1.w, fma(q3.z, k1.z, fma(q3.y, k1.y, fma(q3.x, k1.x, scores[3][1]))));
    }
  }
  return scores;
}

fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn loadKeyTile(head : i32, heads : i32, first : i32, end : i32) {
  let firstKeyRow = keyRow(head, heads, first);
  let load0 = i32(localIndex) + 0;
    var x0 = vec4<f32>(0.0);
    if (first + load0 / headVectors < end) {
      x0 = readKey(firstKeyRow + load0 / headVectors, load0 % headVectors);
    }
    let load1 = i32(localIndex) + 128;
    var x1 = vec4<f32>(0.0);
    if (first + load1 / headVectors < end) {
      x1 = readKey(firstKeyRow + load1 / headVectors, load1 % headVectors);
    }
    let load2 = i32(localIndex) + 256;
    var x2 = vec4<f32>(0.0);
    if (first + load2 / headVectors < end) {
      x2 = readKey(firstKeyRow + load2 / headVectors, load2 % headVectors);
    }
    let load3 = i32(localIndex) + 384;
    var x3 = vec4<f32>(0.0);
    if (first + load3 / headVectors < end) {
      x3 = readKey(firstKeyRow + load3 / headVectors, load3 % headVectors);
    }
    { keyTile[(load0 / headVectors) * tileStride + load0 % headVectors] = x0; }
    { keyTile[(load1 / headVectors) * tileStride + load1 % headVectors] = x1; }
    { keyTile[(load2 / headVectors) * tileStride + load2 % headVectors] = x2; }
    { keyTile[(load3 / headVectors) * tileStride + load3 % headVectors] = x3; }
}
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / uniforms.queryShape.y], 0, uniforms.keyShape.z);
}
fn proxyRange(head : i32) -> vec2<i32> {
  let end = clamp(keyEnd(head) - uniforms.queryOffset, 0, uniforms.queryShape.z);
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
}
var<workgroup> partialSums : array<f32, 256>;

fn main(index : i32) {
  let local = i32(localIndex);
  let x = ((local >> 1) & 1) + ((local >> 2) & 2) + 4 * ((local >> 4) % 4);
  let y = (local & 1) + ((local >> 1) & 2) + 4 * ((local >> 4) / 4);
  let permutedLength = uniforms.outShape.z;
  let keyTiles = (permutedLength + tileKeys - 1) / tileKeys;
  let firstKey = (workgroupIndex() % keyTiles) * tileKeys;
  let head = workgroupIndex() / keyTiles;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let endKey = select(0, min(firstKey + tileKeys, permutedLength), exists);
  loadKeyTile(head, uniforms.outShape.y, firstKey, min(endKey, keyEnd(head)));

  let proxy = proxyRange(head);
  let firstProxy = proxy.x;
  let proxyRows = proxy.y - proxy.x;
  // All entries take the same number of rounds, as barriers demand; past an entry's last row the tile is empty.
  var columnSums : array<f32, columns>;
  for (var firstRow = 0; firstRow < uniforms.proxyRows; firstRow += tileQueries) {
    let endRow = min(firstRow + tileQueries, proxyRows);
    loadQueryTile(head, firstProxy + firstRow, select(0, firstProxy + endRow, exists));
    // Barrier: scores read rows that others loaded.
    workgroupBarrier();
    let scores = tileScores(x, y);
    for (var r = 0; r < rows; r++) {
      let row = firstRow + y + r * threadsY;
      if (row < endRow && exists) {
        let logSum = rowLogSums[head * uniforms.proxyRows + row];
        for (var c = 0; c < columns; c++) {
          columnSums[c] += exp2(scores[r][c] - logSum);
        }
      }
    }
    // Barrier: the next round overwrites the queries.
    workgroupBarrier();
  }

  for (var c = 0; c < columns; c++) {
    partialSums[y * tileKeys + x + c * threadsX] = columnSums[c];
  }
  // Barrier: a key's score needs the parts of all y.
  workgroupBarrier();
  for (var slot = local; slot < tileKeys; slot += threads) {
    var sum = 0.0;
    for (var i = 0; i < threadsY; i++) {
      sum += partialSums[i * tileKeys + slot];
    }
    if (firstKey + slot < endKey) {
      // Padding scores 0, and so does every key where there is no proxy row.
      let scores = proxyRows > 0 && firstKey + slot < keyEnd(head);
      result[head * permutedLength + firstKey + slot] = select(0.0, sum / f32(max(1, proxyRows)), scores);
    }
  }
}
