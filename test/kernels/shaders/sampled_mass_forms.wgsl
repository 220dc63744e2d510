// A workgroup takes the rows of one phase of a query block, in tiles of tileQueries, and walks over tiles of tileKeys keys, twice:
// for the normaliser of each row, and over the phase's sample for what the rows pay to each block.
//
// Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x in workgroup
// memory. What a row pays to a block is added up over x there, too, and then the rows of a block.
//
// Keys are read ahead into registers, and where they stand one tile before that.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
const threads = 128;
const threadsX = 8;
const threadsY = 16;
const rows = 2;
const columns = 4;
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
// Key blocks before the segment in which a position lies.
fn blocksBefore(position : i32) -> i32 {
  return position / uniforms.segmentSize * (uniforms.segmentSize / uniforms.keyBlockSize);
}
fn firstBlock(queryBlock : i32) -> i32 {
  let firstKey = uniforms.firstPosition + queryBlock * uniforms.blockSize - uniforms.window + 1;
  return min(blocksBefore(max(0, firstKey)), uniforms.keyBlocks);
}
// Whether key 0 is in the window of the first row.
fn seesFirstKey(queryBlock : i32) -> bool {
  return uniforms.firstPosition + queryBlock * uniforms.blockSize < uniforms.window;
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  let lastKey = uniforms.firstPosition + lastRow;
  return min(blocksBefore(lastKey) + uniforms.segmentSize / uniforms.keyBlockSize, uniforms.keyBlocks);
}
fn scoredBlocks(queryBlock : i32) -> i32 {
  return blocksBefore(uniforms.firstPosition + queryBlock * uniforms.blockSize);
}
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}
fn atMost(x : f32, limit : f32) -> f32 {
  return select(x, limit, x > limit && x < 3.4e38f);
}
// Of a row: maxima and sums in each x; then what it pays to parts of the blocks of a tile.
var<workgroup> partials : array<f32, 544>;
// What the rows pay to each block of a tile.
var<workgroup> shares : array<f32, 64>;
var<workgroup> sinkBlock : i32;
// Slots [0, x) compete; slots from y on are of the own segments, up to z. Slots before w lie outside of the window.
var<workgroup> span : vec4<i32>;

// The same for all invocations of the workgroup.
var<private> phase : i32;
// Slots that compete, and those of the own segments; the slots of the block of key 0; and how many sample the others.
var<private> competing : i32;
var<private> firstOwn : i32;
var<private> seen : i32;
var<private> firstSink : i32;
var<private> endSink : i32;
var<private> coarse : i32;
// The first slot that may lie in the window, and how many sample the slots before its run.
var<private> firstSlot : i32;
var<private> firstCoarse : i32;

// The place-th row of the phase in a query block.
fn rowOfPlace(place : i32) -> i32 {
  return 4 * place + ((phase - place) & 3);
}

// Original index of the key in a slot; of some key where there is none.
fn keyIn(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyLength + max(slot, 0)];
}

// Slots of the normaliser: those of one tile of four of the sample, by turns, then the block of key 0, then the own segments.
fn normaliserSlot(t : i32, column : i32) -> i32 {
  let place = t * tileKeys + column;
  if (place < coarse) {
    let run = (place + firstCoarse) / 16;
    let tile = 4 * run + ((-phase - run) & 3);
    let slot = 64 * tile + 4 * (place % 16) + (-phase & 3);
    return select(slot, -1, slot < firstSlot || slot >= competing || (slot >= firstSink && slot < endSink));
  }
  let inSink = firstSink + place - coarse;
  if (inSink < endSink) {
    return inSink;
  }
  let slot = firstOwn + inSink - endSink;
  return select(-1, slot, slot < seen);
}

// The block of a column of the sample, and its slot.
fn sampledBlock(t : i32, column : i32) -> i32 {
  return (t / uniforms.tilesOfBlock) * 2 + column / 16 + firstSlot / uniforms.keyBlockSize;
}
fn sampledSlot(t : i32, column : i32) -> i32 {
  let first = sampledBlock(t, column) * uniforms.keyBlockSize;
  let place = (t % uniforms.tilesOfBlock) * tileKeys + column % 16;
  let slot = first + (-(phase + first) & 3) + 4 * place;
  return select(-1, slot, slot < min(first + uniforms.keyBlockSize, competing));
}

// Adds the shares of a block's rows to the result. The same invocation has a block in every tile of rows.
fn addShares(results : i32, t : i32, rowTile : i32) {
  let block = sampledBlock(t, 0) + i32(localIndex);
  let isLast = (t + 1) % uniforms.tilesOfBlock == 0;
  if (t >= 0 && isLast && i32(localIndex) < 2 && block * uniforms.keyBlockSize < competing) {
    var sum = 0.0;
    var peak = 0.0;
    for (var i = 0; i < tileQueries; i++) {
      let share = shares[i32(localIndex) * tileQueries + i];
      sum += share;
      peak = max(peak, share);
    }
    let at = results + block;
    if (rowTile > 0) {
      sum += result[at];
      peak = max(peak, result[at + uniforms.keyBlocks]);
    }
    result[at] = sum;
    result[at + uniforms.keyBlocks] = peak;
  }
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % 2);
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / 2);
  let allHeads = uniforms.batch * uniforms.heads;
  let head = workgroupIndex() % allHeads;
  phase = (workgroupIndex() / allHeads) % 4;
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let queryBlock = uniforms.queryBlocks - 1 - workgroupIndex() / (allHeads * 4);
  let exists = queryBlock >= 0;
  let firstRow = queryBlock * uniforms.blockSize;
  let rowCount = select(0, min(uniforms.blockSize, uniforms.queryLength - firstRow), exists);
  if (local == 0) {
    let end = keyEnd(head);
    let scored = scoredBlocks(queryBlock) * uniforms.keyBlockSize;
    let visible = visibleBlocks(queryBlock) * uniforms.keyBlockSize;
    span = select(vec4<i32>(0), vec4<i32>(min(scored, end), scored, min(visible, end), firstBlock(queryBlock) * uniforms.keyBlockSize), exists);
  }
  // Original key 0 stays in the first segment: the one invocation that meets it says in which block.
  let firstSegment = min(uniforms.segmentSize, uniforms.keyLength);
  for (var i = local; i < firstSegment && exists; i += threads) {
    if (keyIndices[head * uniforms.keyLength + i] == 0) {
      sinkBlock = i / uniforms.keyBlockSize;
    }
  }
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform loads, which are also the
  // barrier between writing and reading the sink block.
  let slots = workgroupUniformLoad(&span);
  competing = slots.x;
  firstOwn = slots.y;
  seen = slots.z;
  firstSink = workgroupUniformLoad(&sinkBlock) * uniforms.keyBlockSize;
  endSink = max(firstSink, min(firstSink + uniforms.keyBlockSize, competing));
  let windowStart = slots.w;
  firstSlot = windowStart;
  let coarseStart = 16 * (min(windowStart, slots.x) / 256);
  firstCoarse = coarseStart;
  endSink = select(firstSink, endSink, seesFirstKey(queryBlock));
  let coarsePlaces = 16 * ((slots.x + 255) / 256) - coarseStart;
  coarse = coarsePlaces;
  // Without a block that competes there is nothing to find out. The block of key 0 may have fewer slots than are counted.
  let places = coarsePlaces + uniforms.keyBlockSize + max(0, slots.z - slots.y);
  let normaliserTiles = select(0, (places + tileKeys - 1) / tileKeys, slots.x > windowStart);
  let blocks = (slots.x + uniforms.keyBlockSize - 1) / uniforms.keyBlockSize;
  let sampleTiles = ((max(0, blocks - windowStart / uniforms.keyBlockSize) + 1) / 2) * uniforms.tilesOfBlock;

  let results = ((head * uniforms.queryBlocks + queryBlock) * 4 + phase) * 2 * uniforms.keyBlocks;
  for (var i = blocks + local; i < uniforms.keyBlocks && exists; i += threads) {
    result[results + i] = 0.0;
    result[results + uniforms.keyBlocks + i] = 0.0;
  }
  for (var i = local; i < firstSlot / uniforms.keyBlockSize && exists; i += threads) {
    result[results + i] = 0.0;
    result[results + uniforms.keyBlocks + i] = 0.0;
  }
  let firstKeyRow = keyRow(head, 0);
  var fetched : array<vec4<f32>, 4>;
  var positions : array<i32, 4>;

  for (var rowTile = 0; rowTile < uniforms.rowTiles; rowTile++) {
    let firstPlace = rowTile * tileQueries;
    {
    var fetched = array<vec4<f32>, 4>();
    if (rowOfPlace(firstPlace + (local / 16)) < rowCount) { fetched[0] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + rowOfPlace(firstPlace + (local / 16)), local % 16); }
    if (rowOfPlace(firstPlace + ((local + 128) / 16)) < rowCount) { fetched[1] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + rowOfPlace(firstPlace + ((local + 128) / 16)), (local + 128) % 16); }
    if (rowOfPlace(firstPlace + ((local + 256) / 16)) < rowCount) { fetched[2] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + rowOfPlace(firstPlace + ((local + 256) / 16)), (local + 256) % 16); }
    if (rowOfPlace(firstPlace + ((local + 384) / 16)) < rowCount) { fetched[3] = uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + rowOfPlace(firstPlace + ((local + 384) / 16)), (local + 384) % 16); }
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
    let row0 = rowOfPlace(firstPlace + y + 0 * threadsY);
    let row1 = rowOfPlace(firstPlace + y + 1 * threadsY);

    // 1. log2 of the normalisers.
    var rowMax = vec2<f32>(lowest);
    var rowSum = vec2<f32>(0.0);
    {
      positions[0] = keyIn(head, normaliserSlot(0, (local / 16)));
      positions[1] = keyIn(head, normaliserSlot(0, ((local + 128) / 16)));
      positions[2] = keyIn(head, normaliserSlot(0, ((local + 256) / 16)));
      positions[3] = keyIn(head, normaliserSlot(0, ((local + 384) / 16)));
      fetched[0] = readKey(firstKeyRow + positions[0], local % 16);
    fetched[1] = readKey(firstKeyRow + positions[1], (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + positions[2], (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + positions[3], (local + 384) % 16);
      positions[0] = keyIn(head, normaliserSlot(1, (local / 16)));
      positions[1] = keyIn(head, normaliserSlot(1, ((local + 128) / 16)));
      positions[2] = keyIn(head, normaliserSlot(1, ((local + 256) / 16)));
      positions[3] = keyIn(head, normaliserSlot(1, ((local + 384) / 16)));
    }
    for (var t = 0; t < normaliserTiles; t++) {
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
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      fetched[0] = readKey(firstKeyRow + positions[0], local % 16);
    fetched[1] = readKey(firstKeyRow + positions[1], (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + positions[2], (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + positions[3], (local + 384) % 16);
      positions[0] = keyIn(head, normaliserSlot(t + 2, (local / 16)));
      positions[1] = keyIn(head, normaliserSlot(t + 2, ((local + 128) / 16)));
      positions[2] = keyIn(head, normaliserSlot(t + 2, ((local + 256) / 16)));
      positions[3] = keyIn(head, normaliserSlot(t + 2, ((local + 384) / 16)));
      
      var scores = tileScores(x, y);
      let slot0 = normaliserSlot(t, x + 0 * threadsX);
      // A sampled key stands for 16. Of the own segments a row sees what its position lets it.
      let weight0 = select(0.0, 4.0, t * tileKeys + x + 0 * threadsX < coarse);
      var position0 = select(-1, 0x7fffffff, slot0 < 0);
      if (slot0 >= 0) {
        position0 = keyIn(head, slot0);
      }
      let slot1 = normaliserSlot(t, x + 1 * threadsX);
      // A sampled key stands for 16. Of the own segments a row sees what its position lets it.
      let weight1 = select(0.0, 4.0, t * tileKeys + x + 1 * threadsX < coarse);
      var position1 = select(-1, 0x7fffffff, slot1 < 0);
      if (slot1 >= 0) {
        position1 = keyIn(head, slot1);
      }
      let slot2 = normaliserSlot(t, x + 2 * threadsX);
      // A sampled key stands for 16. Of the own segments a row sees what its position lets it.
      let weight2 = select(0.0, 4.0, t * tileKeys + x + 2 * threadsX < coarse);
      var position2 = select(-1, 0x7fffffff, slot2 < 0);
      if (slot2 >= 0) {
        position2 = keyIn(head, slot2);
      }
      let slot3 = normaliserSlot(t, x + 3 * threadsX);
      // A sampled key stands for 16. Of the own segments a row sees what its position lets it.
      let weight3 = select(0.0, 4.0, t * tileKeys + x + 3 * threadsX < coarse);
      var position3 = select(-1, 0x7fffffff, slot3 < 0);
      if (slot3 >= 0) {
        position3 = keyIn(head, slot3);
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row0;
        let maskStart = maskRow(head, firstRow + row0);
        let firstVisible = uniforms.firstPosition + firstRow + row0 - uniforms.window + 1;
        let lastVisible = uniforms.queryOffset + firstRow + row0;
        scores[0][0] = select(select(maskedScore(cappedScore(scores[0][0]) - slope * f32(slopedPosition - (position0)), maskStart, position0), masked, position0 < firstVisible) + weight0, masked, position0 > lastVisible);
        scores[0][1] = select(select(maskedScore(cappedScore(scores[0][1]) - slope * f32(slopedPosition - (position1)), maskStart, position1), masked, position1 < firstVisible) + weight1, masked, position1 > lastVisible);
        scores[0][2] = select(select(maskedScore(cappedScore(scores[0][2]) - slope * f32(slopedPosition - (position2)), maskStart, position2), masked, position2 < firstVisible) + weight2, masked, position2 > lastVisible);
        scores[0][3] = select(select(maskedScore(cappedScore(scores[0][3]) - slope * f32(slopedPosition - (position3)), maskStart, position3), masked, position3 < firstVisible) + weight3, masked, position3 > lastVisible);
      }
      {
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row1;
        let maskStart = maskRow(head, firstRow + row1);
        let firstVisible = uniforms.firstPosition + firstRow + row1 - uniforms.window + 1;
        let lastVisible = uniforms.queryOffset + firstRow + row1;
        scores[1][0] = select(select(maskedScore(cappedScore(scores[1][0]) - slope * f32(slopedPosition - (position0)), maskStart, position0), masked, position0 < firstVisible) + weight0, masked, position0 > lastVisible);
        scores[1][1] = select(select(maskedScore(cappedScore(scores[1][1]) - slope * f32(slopedPosition - (position1)), maskStart, position1), masked, position1 < firstVisible) + weight1, masked, position1 > lastVisible);
        scores[1][2] = select(select(maskedScore(cappedScore(scores[1][2]) - slope * f32(slopedPosition - (position2)), maskStart, position2), masked, position2 < firstVisible) + weight2, masked, position2 > lastVisible);
        scores[1][3] = select(select(maskedScore(cappedScore(scores[1][3]) - slope * f32(slopedPosition - (position3)), maskStart, position3), masked, position3 < firstVisible) + weight3, masked, position3 > lastVisible);
      }
      {
      var newMax = rowMax[0];
      newMax = max(newMax, scores[0][0]);
    newMax = max(newMax, scores[0][1]);
    newMax = max(newMax, scores[0][2]);
    newMax = max(newMax, scores[0][3]);
      rowSum[0] = fma(rowSum[0], exp2(rowMax[0] - newMax), exp2(scores[0][0] - newMax) + exp2(scores[0][1] - newMax) + exp2(scores[0][2] - newMax) + exp2(scores[0][3] - newMax));
      rowMax[0] = newMax;
    }
    {
      var newMax = rowMax[1];
      newMax = max(newMax, scores[1][0]);
    newMax = max(newMax, scores[1][1]);
    newMax = max(newMax, scores[1][2]);
    newMax = max(newMax, scores[1][3]);
      rowSum[1] = fma(rowSum[1], exp2(rowMax[1] - newMax), exp2(scores[1][0] - newMax) + exp2(scores[1][1] - newMax) + exp2(scores[1][2] - newMax) + exp2(scores[1][3] - newMax));
      rowMax[1] = newMax;
    }
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();
    }
    partials[(y + 0 * threadsY) * 17 + 2 * x] = rowMax[0];
    partials[(y + 0 * threadsY) * 17 + 2 * x + 1] = rowSum[0];
    partials[(y + 1 * threadsY) * 17 + 2 * x] = rowMax[1];
    partials[(y + 1 * threadsY) * 17 + 2 * x + 1] = rowSum[1];
    // Barrier: the sum of a row needs the parts of all x.
    workgroupBarrier();
    var logSum0 = lowest;
    {
      let first = (y + 0 * threadsY) * 17;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + 2 * i]);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + 2 * i + 1] * exp2(partials[first + 2 * i] - total);
      }
      logSum0 = select(total + logOfSum(sum), lowest, sum == 0.0);
    }
    var logSum1 = lowest;
    {
      let first = (y + 1 * threadsY) * 17;
      var total = lowest;
      for (var i = 0; i < threadsX; i++) {
        total = max(total, partials[first + 2 * i]);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + 2 * i + 1] * exp2(partials[first + 2 * i] - total);
      }
      logSum1 = select(total + logOfSum(sum), lowest, sum == 0.0);
    }

    // 2. What the rows pay to each block, of which the keys of the sample pay 1 / 4.
    {
      positions[0] = keyIn(head, sampledSlot(0, (local / 16)));
      positions[1] = keyIn(head, sampledSlot(0, ((local + 128) / 16)));
      positions[2] = keyIn(head, sampledSlot(0, ((local + 256) / 16)));
      positions[3] = keyIn(head, sampledSlot(0, ((local + 384) / 16)));
      fetched[0] = readKey(firstKeyRow + positions[0], local % 16);
    fetched[1] = readKey(firstKeyRow + positions[1], (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + positions[2], (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + positions[3], (local + 384) % 16);
      positions[0] = keyIn(head, sampledSlot(1, (local / 16)));
      positions[1] = keyIn(head, sampledSlot(1, ((local + 128) / 16)));
      positions[2] = keyIn(head, sampledSlot(1, ((local + 256) / 16)));
      positions[3] = keyIn(head, sampledSlot(1, ((local + 384) / 16)));
    }
    for (var t = 0; t < sampleTiles; t++) {
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
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      fetched[0] = readKey(firstKeyRow + positions[0], local % 16);
    fetched[1] = readKey(firstKeyRow + positions[1], (local + 128) % 16);
    fetched[2] = readKey(firstKeyRow + positions[2], (local + 256) % 16);
    fetched[3] = readKey(firstKeyRow + positions[3], (local + 384) % 16);
      positions[0] = keyIn(head, sampledSlot(t + 2, (local / 16)));
      positions[1] = keyIn(head, sampledSlot(t + 2, ((local + 128) / 16)));
      positions[2] = keyIn(head, sampledSlot(t + 2, ((local + 256) / 16)));
      positions[3] = keyIn(head, sampledSlot(t + 2, ((local + 384) / 16)));
      addShares(results, t - 1, rowTile);
      var scores = tileScores(x, y);
      let isThere0 = sampledSlot(t, x + 0 * threadsX) >= 0;
      let position0 = keyIn(head, sampledSlot(t, x + 0 * threadsX));
      let isThere1 = sampledSlot(t, x + 1 * threadsX) >= 0;
      let position1 = keyIn(head, sampledSlot(t, x + 1 * threadsX));
      let isThere2 = sampledSlot(t, x + 2 * threadsX) >= 0;
      let position2 = keyIn(head, sampledSlot(t, x + 2 * threadsX));
      let isThere3 = sampledSlot(t, x + 3 * threadsX) >= 0;
      let position3 = keyIn(head, sampledSlot(t, x + 3 * threadsX));
      {
        // Where a normaliser missed what its row pays most to, a share can come out above 1. What is not finite stays so.
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row0;
        let maskStart = maskRow(head, firstRow + row0);
        let firstVisible = uniforms.firstPosition + firstRow + row0 - uniforms.window + 1;
        let above0 = select(maskedScore(cappedScore(scores[0][0]) - slope * f32(slopedPosition - (position0)), maskStart, position0), masked, position0 < firstVisible) - logSum0;
        let paid0 = select(0.0, exp2(select(above0, 0.0, above0 > 0.0)), isThere0 && row0 < rowCount);
        let above1 = select(maskedScore(cappedScore(scores[0][1]) - slope * f32(slopedPosition - (position1)), maskStart, position1), masked, position1 < firstVisible) - logSum0;
        let paid1 = select(0.0, exp2(select(above1, 0.0, above1 > 0.0)), isThere1 && row0 < rowCount);
        let above2 = select(maskedScore(cappedScore(scores[0][2]) - slope * f32(slopedPosition - (position2)), maskStart, position2), masked, position2 < firstVisible) - logSum0;
        let paid2 = select(0.0, exp2(select(above2, 0.0, above2 > 0.0)), isThere2 && row0 < rowCount);
        let above3 = select(maskedScore(cappedScore(scores[0][3]) - slope * f32(slopedPosition - (position3)), maskStart, position3), masked, position3 < firstVisible) - logSum0;
        let paid3 = select(0.0, exp2(select(above3, 0.0, above3 > 0.0)), isThere3 && row0 < rowCount);
        partials[(y + 0 * threadsY) * 17 + 0 * threadsX + x] = paid0 + paid1;
        partials[(y + 0 * threadsY) * 17 + 1 * threadsX + x] = paid2 + paid3;
      }
      {
        // Where a normaliser missed what its row pays most to, a share can come out above 1. What is not finite stays so.
        let slope = headForms[head].y;
      let slopedPosition = uniforms.firstPosition + firstRow + row1;
        let maskStart = maskRow(head, firstRow + row1);
        let firstVisible = uniforms.firstPosition + firstRow + row1 - uniforms.window + 1;
        let above0 = select(maskedScore(cappedScore(scores[1][0]) - slope * f32(slopedPosition - (position0)), maskStart, position0), masked, position0 < firstVisible) - logSum1;
        let paid0 = select(0.0, exp2(select(above0, 0.0, above0 > 0.0)), isThere0 && row1 < rowCount);
        let above1 = select(maskedScore(cappedScore(scores[1][1]) - slope * f32(slopedPosition - (position1)), maskStart, position1), masked, position1 < firstVisible) - logSum1;
        let paid1 = select(0.0, exp2(select(above1, 0.0, above1 > 0.0)), isThere1 && row1 < rowCount);
        let above2 = select(maskedScore(cappedScore(scores[1][2]) - slope * f32(slopedPosition - (position2)), maskStart, position2), masked, position2 < firstVisible) - logSum1;
        let paid2 = select(0.0, exp2(select(above2, 0.0, above2 > 0.0)), isThere2 && row1 < rowCount);
        let above3 = select(maskedScore(cappedScore(scores[1][3]) - slope * f32(slopedPosition - (position3)), maskStart, position3), masked, position3 < firstVisible) - logSum1;
        let paid3 = select(0.0, exp2(select(above3, 0.0, above3 > 0.0)), isThere3 && row1 < rowCount);
        partials[(y + 1 * threadsY) * 17 + 0 * threadsX + x] = paid0 + paid1;
        partials[(y + 1 * threadsY) * 17 + 1 * threadsX + x] = paid2 + paid3;
      }
      // Barrier: the share of a row needs the parts of all x; and no key is read any more.
      workgroupBarrier();
      for (var i = local; i < 2 * tileQueries; i += threads) {
        let first = (i % tileQueries) * 17 + (i / tileQueries) * 8;
        var sum = 0.0;
        sum += partials[first + 0];
        sum += partials[first + 1];
        sum += partials[first + 2];
        sum += partials[first + 3];
        sum += partials[first + 4];
        sum += partials[first + 5];
        sum += partials[first + 6];
        sum += partials[first + 7];
        shares[i] = atMost(4.0 * sum, 1.0);
      }
    }
    // Barrier: the last shares are read where others wrote them; and the next rows replace these.
    workgroupBarrier();
    addShares(results, sampleTiles - 1, rowTile);
    // Barrier: the next tiles overwrite the shares.
    workgroupBarrier();
  }
}
