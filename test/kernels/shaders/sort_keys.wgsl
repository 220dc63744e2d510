// An invocation owns one key. Its place in the sorted segment is the number of keys that come before it, found by
// comparing it with all keys of the segment. Next to a sorting network this takes no power of two, two barriers a tile, and a
// segment of any size.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

var<workgroup> rankedTile : array<u32, 256>;

fn scoreBits(at : i32) -> u32 {
  return min(bitcast<u32>(keyScores[at]) & 0x7fffffffu, 0x7f800001u);
}

// The values pass through workgroup memory in tiles; past the last stand zeros, which come before nothing.
fn rank(first : i32, count : i32, own : i32) -> i32 {
  let local = i32(min(localIndex, 255u));
  var value = 0u;
  if (own < count) {
    value = scoreBits(first + own);
  }
  var before = 0;
  for (var base = 0; base < count; base += 256) {
    var loaded = 0u;
    if (base + local < count) {
      loaded = scoreBits(first + base + local);
    }
    rankedTile[local] = loaded;
    // Barrier: every invocation reads what all have loaded.
    workgroupBarrier();
    for (var i = 0; i < 256; i += 8) {
      let other0 = rankedTile[i + 0];
      let other1 = rankedTile[i + 1];
      let other2 = rankedTile[i + 2];
      let other3 = rankedTile[i + 3];
      let other4 = rankedTile[i + 4];
      let other5 = rankedTile[i + 5];
      let other6 = rankedTile[i + 6];
      let other7 = rankedTile[i + 7];
      before += select(0, 1, other0 > value || (other0 == value && base + i + 0 < own));
      before += select(0, 1, other1 > value || (other1 == value && base + i + 1 < own));
      before += select(0, 1, other2 > value || (other2 == value && base + i + 2 < own));
      before += select(0, 1, other3 > value || (other3 == value && base + i + 3 < own));
      before += select(0, 1, other4 > value || (other4 == value && base + i + 4 < own));
      before += select(0, 1, other5 > value || (other5 == value && base + i + 5 < own));
      before += select(0, 1, other6 > value || (other6 == value && base + i + 6 < own));
      before += select(0, 1, other7 > value || (other7 == value && base + i + 7 < own));
    }
    // Barrier: the next round overwrites the values.
    workgroupBarrier();
  }
  return before;
}

// Keys of the segment that are sorted: all or none.
var<workgroup> sortedKeys : i32;

fn main(index : i32) {
  let local = i32(min(localIndex, 255u));
  let heads = uniforms.batch * uniforms.heads;
  let length = uniforms.keyLength;
  let permutedLength = uniforms.permutedLength;
  let segmentSize = uniforms.segmentSize;
  let segments = (length + segmentSize - 1) / segmentSize;
  let segment = workgroupIndex() / uniforms.chunks;
  let head = segment / segments;
  let first = (segment % segments) * segmentSize;
  let own = (workgroupIndex() % uniforms.chunks) * 256 + local;
  // Keys after the last complete segment keep their order.
  let complete = head < heads && first < permutedLength;
  let scores = head * permutedLength + first;
  if (local == 0) {
    sortedKeys = select(0, segmentSize, complete);
  }
  // The ranking holds barriers, so all invocations must agree on the count: hence the uniform load.
  let before = rank(scores, workgroupUniformLoad(&sortedKeys), own);
  if (head < heads && own < segmentSize && first + own < length) {
    result[head * length + first + select(own, before, complete)] = first + own;
  }
}
