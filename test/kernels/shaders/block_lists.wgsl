// A workgroup writes the list of one query block, an invocation looks at every 128th key block. The kept blocks of a round
// find their places in the list by a prefix sum over the invocations.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
const threads = 128;

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
  let blocks = uniforms.blockMaskShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var kept = 0;
  for (var base = 0; base < blocks; base += threads) {
    let i = base + local;
    var keep = false;
    if (exists && i < blocks) {
      keep = blockMask[row * blocks + i] != 0;
    }
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
