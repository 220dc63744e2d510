// An invocation owns one key. Its place in the sorted segment is the number of keys that come before it, found by
// comparing it with all keys of the segment, which pass through workgroup memory in tiles. Next to a sorting network
// this takes no power of two, two barriers a tile, and a segment of any size.
//
// Scores are compared by their bits: for floats that are not negative the order is the same, and it stays a total order
// when there are NaNs, so that the result is a permutation whatever the input.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> scoreTile : array<u32, 256>;

fn main(index : i32) {
  let local = i32(localIndex);
  let heads = uniforms.outShape.x * uniforms.outShape.y;
  let length = uniforms.outShape.z;
  let permutedLength = uniforms.keyScoresShape.z;
  let segmentSize = uniforms.segmentSize;
  let segments = (length + segmentSize - 1) / segmentSize;
  let segment = workgroupIndex() / uniforms.chunks;
  let head = segment / segments;
  let first = (segment % segments) * segmentSize;
  let own = (workgroupIndex() % uniforms.chunks) * 256 + local;
  // The remainder after the last complete segment keeps its order.
  let complete = head < heads && first < permutedLength && true;
  let scores = head * permutedLength + first;
  var score = 0u;
  if (complete && own < segmentSize) {
    score = bitcast<u32>(keyScores[scores + own]);
  }
  var before = 0;
  for (var base = 0; base < segmentSize; base += 256) {
    if (complete && base + local < segmentSize) {
      scoreTile[local] = bitcast<u32>(keyScores[scores + base + local]);
    }
    // Barrier: every invocation reads the scores that all have loaded.
    workgroupBarrier();
    for (var i = 0; i < min(256, segmentSize - base); i++) {
      let other = scoreTile[i];
      before += select(0, 1, other > score || (other == score && base + i < own));
    }
    // Barrier: the next round overwrites the scores.
    workgroupBarrier();
  }
  if (head < heads && own < segmentSize && first + own < length) {
    result[head * length + first + select(own, before, complete)] = first + own;
  }
}
