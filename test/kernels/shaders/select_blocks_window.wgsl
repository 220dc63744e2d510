// A workgroup writes the list of one query block; an invocation decides on every 128th key block. The kept blocks of a round
// find their places in the list by a prefix sum over the invocations.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
const threads = 128;
var<workgroup> sinkBlock : i32;
// Key blocks that compete for the query block, and key blocks that it may see: [0, x) and [0, y).
var<workgroup> blockCounts : vec2<i32>;

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

var<workgroup> counts : array<i32, threads>;

// Number of invocations up to this one, itself included, for which keep holds.
fn countUpTo(keep : bool) -> i32 {
  let local = i32(min(localIndex, 127u));
  var count = select(0, 1, keep);
  counts[local] = count;
  for (var step = 1; step < threads; step *= 2) {
    // Barriers: read what others wrote in the round before; then let all read before anyone writes.
    workgroupBarrier();
    if (local >= step) {
      count += counts[local - step];
    }
    workgroupBarrier();
    counts[local] = count;
  }
  workgroupBarrier();
  return count;
}
fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let blocks = uniforms.keyBlocks;
  let row = workgroupIndex();
  let queryBlock = row % uniforms.queryBlocks;
  let head = row / uniforms.queryBlocks;
  let exists = head < uniforms.batch * uniforms.heads;
  if (local == 0) {
    blockCounts = select(vec2<i32>(0), vec2<i32>(scoredBlocks(queryBlock), visibleBlocks(queryBlock)), exists);
  }
  // Original key 0 stays in the first segment: the one invocation that meets it says in which block.
  let firstSegment = min(uniforms.segmentSize, uniforms.keyLength);
  for (var i = local; i < firstSegment && exists; i += threads) {
    if (keyIndices[head * uniforms.keyLength + i] == 0) {
      sinkBlock = i / uniforms.keyBlockSize;
    }
  }
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform load, which is also the
  // barrier between writing and reading the sink block.
  let counted = workgroupUniformLoad(&blockCounts);
  let candidates = counted.x;
  let end = counted.y;
  let first = firstBlock(queryBlock);
  let leastScore = uniforms.leastScoreScale / sqrt(f32((candidates - first) * uniforms.keyBlockSize + uniforms.segmentSize));

  var kept = 0;
  for (var base = 0; base < end; base += threads) {
    let i = base + local;
    var score = 0.0;
    if (i < candidates) {
      score = scores[row * blocks + i];
    }
    // Written so that a NaN keeps the block.
    let chosen = i < candidates && !(score < leastScore);
    let keep = i >= first && i < end && (chosen || (i == sinkBlock && seesFirstKey(queryBlock)) || i >= candidates);
    let place = kept + countUpTo(keep);
    if (keep) {
      result[row * (blocks + 1) + place] = i;
    }
    kept += counts[threads - 1];
    // Barrier: the next round overwrites the counts.
    workgroupBarrier();
  }
  if (local == 0 && exists) {
    result[row * (blocks + 1)] = kept;
  }
}
