// An invocation adds up one value over the heads that share it, which lie one after another.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let headSize = uniforms.outShape.z * uniforms.outShape.w;
  if (i < uniforms.outShape.x * uniforms.outShape.y * headSize) {
    let at = uniforms.first + (i / headSize) * uniforms.sharing * headSize + i % headSize;
    var sum = 0.0;
    for (var head = 0; head < uniforms.sharing; head++) {
      sum += gradients[at + head * headSize];
    }
    result[i] = sum;
  }
}
