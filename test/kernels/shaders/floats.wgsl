// An invocation converts one number.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  if (i < uniforms.count) {
    result[i] = f32(integers[i]);
  }
}
