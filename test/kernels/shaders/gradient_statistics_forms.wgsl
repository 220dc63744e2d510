// A workgroup takes tileQueries query rows of one head and walks over tiles of tileKeys keys. Invocation (x, y)
// computes the scores of rows y + r * threadsY with columns x + c * threadsX, and keeps, in registers, maximum and sum of its
// rows over its own columns; they are combined over x once at the end, in workgroup memory.
//
// Workgroup memory: the query rows, for the whole run or by chunks (ownedTile); walkedTile, the keys; partials. Global
// memory is read ahead into registers: the next keys while scores are computed, and where the ones after that stand.

const threads = 64;
const threadsX = 8;
const threadsY = 8;
const rows = 2;
const columns = 2;
const tileQueries = 16;
const tileKeys = 16;
const tileStride = 9;
const weightStride = 9;
var<workgroup> ownedTile : array<vec4<f32>, 144>;
var<workgroup> walkedTile : array<vec4<f32>, 144>;
// Rows of the tensors; -1 for none. Of the walked ones there are those of this round and those of the next.
var<workgroup> ownedRows : array<i32, 16>;
var<workgroup> walkedRows : array<i32, 32>;
fn readQuery(row : i32, vector : i32) -> vec4<f32> { return query[row * 16 + vector]; }
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
// Maximum, sum, and product of output and gradient, of a row in an x.
var<workgroup> partials : array<vec3<f32>, 128>;
fn readOutput(row : i32, vector : i32) -> vec4<f32> { return output[row * 16 + vector]; }
fn readDy(row : i32, vector : i32) -> vec4<f32> { return dy[row * 16 + vector]; }

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
  return i32(headForms[head].x);
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

fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryLength));
}

fn countKeyTiles(head : i32, endRow : i32) -> i32 {
  return (min(uniforms.queryOffset + endRow, keyEnd(head)) + tileKeys - 1) / tileKeys;
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
    return select(paddingPosition, keyPosition(head, tile.x + slot), keyPosition(head, tile.x + slot) < keyEnd(head));
  }
  return paddingPosition;
}
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}

fn visitedKey(head : i32, firstKeyRow : i32, keySpan : vec2<i32>, slot : i32) -> i32 {
  let position = positionIn(head, keySpan, slot);
  return select(firstKeyRow + position, -1, position == paddingPosition);
}

fn main(index : i32) {
  let local = i32(min(localIndex, 63u));
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
  let firstQueryRow = head * uniforms.queryLength;
  if (local < tileQueries) {
    let row = firstRow + local;
    ownedRows[local] = select(-1, firstQueryRow + row, row < endRow);
  }

  var rowMax = vec2<f32>(lowest);
    var rowSum = vec2<f32>(0.0);
  
  // What this invocation carries from global to workgroup memory.
  var fetched : array<vec4<f32>, 4>;
  var aheadRow = -1;
  if (local < 16) {
    aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, 0, keyTiles), local);
    walkedRows[local] = aheadRow;
    aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, 1, keyTiles), local);
  }
  // Barrier: rows are read where others wrote that they stand.
  workgroupBarrier();
  
  fetched[0] = readKey(max(walkedRows[0 + (local / 8)], 0), local % 8);
    fetched[1] = readKey(max(walkedRows[0 + ((local + 64) / 8)], 0), (local + 64) % 8);
    fetched[2] = readQuery(max(ownedRows[(local / 8)], 0), local % 8);
    fetched[3] = readQuery(max(ownedRows[((local + 64) / 8)], 0), (local + 64) % 8);

  for (var t = 0; t < keyTiles; t++) {
    let now = (t & 1) * 16;
    let next = 16 - now;
    // The initial values are needed: without them the last round's stay.
    var scores = array<array<f32, columns>, rows>();
    // scores += query · keyᵀ
    if (local < 16) { walkedRows[next + local] = aheadRow; }
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0);
    }
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[2], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[3], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    if (local < 16) { aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, t + 2, keyTiles), local); }
    fetched[0] = readKey(max(walkedRows[now + (local / 8)], 0), 8 + local % 8);
    fetched[1] = readKey(max(walkedRows[now + ((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    fetched[2] = readQuery(max(ownedRows[(local / 8)], 0), 8 + local % 8);
    fetched[3] = readQuery(max(ownedRows[((local + 64) / 8)], 0), 8 + (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    }
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();

    // scores += query · keyᵀ, vectors from 8 on
    {
      walkedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[0], walkedRows[now + (local / 8)] >= 0);
    }
    {
      walkedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[1], walkedRows[now + ((local + 64) / 8)] >= 0);
    }
    {
      ownedTile[(local / 8) * tileStride + local % 8] = select(vec4<f32>(0.0), fetched[2], ownedRows[(local / 8)] >= 0);
    }
    {
      ownedTile[((local + 64) / 8) * tileStride + (local + 64) % 8] = select(vec4<f32>(0.0), fetched[3], ownedRows[((local + 64) / 8)] >= 0);
    }
    // Barrier: reads what others wrote.
    workgroupBarrier();
    fetched[0] = readKey(max(walkedRows[next + (local / 8)], 0), local % 8);
    fetched[1] = readKey(max(walkedRows[next + ((local + 64) / 8)], 0), (local + 64) % 8);
    fetched[2] = readQuery(max(ownedRows[(local / 8)], 0), local % 8);
    fetched[3] = readQuery(max(ownedRows[((local + 64) / 8)], 0), (local + 64) % 8);
    for (var s = 0; s < 2; s++) {
      let i = s * 4;
      {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 0];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 0];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 0];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 0];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 1];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 1];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 1];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 1];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 2];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 2];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 2];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 2];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    {
      let a0 = ownedTile[(y + 0 * threadsY) * tileStride + i + 3];
    let a1 = ownedTile[(y + 1 * threadsY) * tileStride + i + 3];
      {
        let b = walkedTile[(x + 0 * threadsX) * tileStride + i + 3];
        scores[0][0] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][0]))));
    scores[1][0] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][0]))));
      }
    {
        let b = walkedTile[(x + 1 * threadsX) * tileStride + i + 3];
        scores[0][1] = fma(a0.w, b.w, fma(a0.z, b.z, fma(a0.y, b.y, fma(a0.x, b.x, scores[0][1]))));
    scores[1][1] = fma(a1.w, b.w, fma(a1.z, b.z, fma(a1.y, b.y, fma(a1.x, b.x, scores[1][1]))));
      }
      }
    }
    let position0 = select(paddingPosition, walkedRows[now + x + 0 * threadsX] - firstKeyRow, walkedRows[now + x + 0 * threadsX] >= 0);
    let position1 = select(paddingPosition, walkedRows[now + x + 1 * threadsX] - firstKeyRow, walkedRows[now + x + 1 * threadsX] >= 0);
    {
      let lastVisible = uniforms.queryOffset + firstRow + y + 0 * threadsY;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + y + 0 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 0 * threadsY - uniforms.window + 1;
      scores[0][0] = select(select(cappedScore(uniforms.logitScale * scores[0][0]) - slope * f32(slopedPosition - (position0)), masked, position0 < firstVisible), masked, position0 > lastVisible);
    scores[0][1] = select(select(cappedScore(uniforms.logitScale * scores[0][1]) - slope * f32(slopedPosition - (position1)), masked, position1 < firstVisible), masked, position1 > lastVisible);
    }
    {
      let lastVisible = uniforms.queryOffset + firstRow + y + 1 * threadsY;
      let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + y + 1 * threadsY;
      let firstVisible = uniforms.firstPosition + firstRow + y + 1 * threadsY - uniforms.window + 1;
      scores[1][0] = select(select(cappedScore(uniforms.logitScale * scores[1][0]) - slope * f32(slopedPosition - (position0)), masked, position0 < firstVisible), masked, position0 > lastVisible);
    scores[1][1] = select(select(cappedScore(uniforms.logitScale * scores[1][1]) - slope * f32(slopedPosition - (position1)), masked, position1 < firstVisible), masked, position1 > lastVisible);
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
    // Barrier: the next step overwrites what others may still read.
    workgroupBarrier();
  }

  {
    var product = 0.0;
    let row = firstRow + y + 0 * threadsY;
    for (var vector = x; vector < 16 && row < endRow; vector += threadsX) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + 0 * threadsY) * threadsX + x] = vec3<f32>(rowMax[0], rowSum[0], product);
  }
    {
    var product = 0.0;
    let row = firstRow + y + 1 * threadsY;
    for (var vector = x; vector < 16 && row < endRow; vector += threadsX) {
      product += dot(readOutput(firstQueryRow + row, vector), readDy(firstQueryRow + row, vector));
    }
    partials[(y + 1 * threadsY) * threadsX + x] = vec3<f32>(rowMax[1], rowSum[1], product);
  }
  // Barrier: a row's statistics need the parts of all x.
  workgroupBarrier();
  let row = local;
  if (row < tileQueries && firstRow + row < endRow) {
    var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[row * threadsX + i].x);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[row * threadsX + i].y * exp2(partials[row * threadsX + i].x - total);
      }
    var product = 0.0;
    for (var i = 0; i < threadsX; i++) {
      product += partials[row * threadsX + i].z;
    }
    let at = 8 * (firstQueryRow + firstRow + row);
    let sink = headForms[head].z;
    let top = max(total, sink);
    let logSum = top + log2(sum * exp2(total - top) + exp2(sink - top));
    result[at] = select(logSum, 0.0, sum == 0.0);
    result[at + 1] = product;
    let end = keyEnd(head);
    var last = end - 1;
    last = min(last, uniforms.queryOffset + firstRow + row);
    result[at + 2] = select(f32(last), -1.0, sum == 0.0);
    result[at + 3] = f32(end);
    result[at + 4] = headForms[head].y;
  }
}
