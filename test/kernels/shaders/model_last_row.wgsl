// An invocation copies one value.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let column = workgroupIndex() * 64 + i32(localIndex);
  if (column < uniforms.outShape.y) {
    result[column] = x[(span[1] - 1) * uniforms.outShape.y + column];
  }
}
