// A workgroup writes the row of one query block: zeros, then a one for each entry of its list.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let blocks = uniforms.outShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  for (var i = i32(localIndex); i < blocks && exists; i += 64) {
    result[row * blocks + i] = 0;
  }
  // Barrier: a one must not be overwritten by another invocation's zero.
  storageBarrier();
  for (var i = i32(localIndex); exists && i < blockLists[row * (blocks + 1)]; i += 64) {
    result[row * blocks + blockLists[row * (blocks + 1) + 1 + i]] = 1;
  }
}
