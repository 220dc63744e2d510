// An invocation takes a row.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let row = workgroupIndex() * 64 + i32(localIndex);
  if (row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z) {
    var known = statistics[row];
    let skipped = seen[row * 17 + 16].xy;
    if (skipped.y > 0.0) {
      let logSum = skipped.x + log2(skipped.y);
      // A last position of -1 means that the row sees no key of its blocks.
      let larger = select(max(known.x, logSum), logSum, known.z < 0.0);
      let kept = select(exp2(known.x - larger), 0.0, known.z < 0.0);
      known.x = larger + log2(kept + exp2(logSum - larger));
    }
    result[row] = known;
  }
}
