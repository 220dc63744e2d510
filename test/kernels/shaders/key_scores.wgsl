// A workgroup takes tileKeys keys of one head, loaded once, and walks over the proxy rows in tiles of tileQueries.
// Invocation (x, y) adds up, in registers, the weights of its columns over its own rows; they are added up over y once
// at the end, in workgroup memory.

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
  return uniforms.keyLength;
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
fn proxyRange(head : i32) -> vec2<i32> {
  let end = uniforms.queryLength;
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
}
var<workgroup> partialSums : array<f32, 256>;

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 4);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 4);
  let permutedLength = uniforms.permutedLength;
  let keyTiles = (permutedLength + tileKeys - 1) / tileKeys;
  let firstKey = (workgroupIndex() % keyTiles) * tileKeys;
  let head = workgroupIndex() / keyTiles;
  let exists = head < uniforms.batch * uniforms.heads;
  let endKey = select(0, min(firstKey + tileKeys, permutedLength), exists);
  loadKeyTile(head, firstKey, min(endKey, keyEnd(head)));

  let proxy = proxyRange(head);
  let proxyRows = proxy.y - proxy.x;
  // All entries take the same number of rounds, as barriers demand; past an entry's last row the tile is empty.
  var columnSums : array<f32, columns>;
  for (var firstRow = 0; firstRow < uniforms.proxyRows; firstRow += tileQueries) {
    let endRow = min(firstRow + tileQueries, proxyRows);
    loadQueryTile(head, proxy.x + firstRow, select(0, proxy.x + endRow, exists));
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
