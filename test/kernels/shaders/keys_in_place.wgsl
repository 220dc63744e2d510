// An invocation writes one key.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let length = uniforms.outShape.z;
  if (i < uniforms.outShape.x * uniforms.outShape.y * length) {
    result[i] = i % length;
  }
}
