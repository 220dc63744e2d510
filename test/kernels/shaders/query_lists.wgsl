// An invocation writes the list of one key block, going down its column of the mask; neighbours read neighbours.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let list = workgroupIndex() * 64 + i32(localIndex);
  let keyBlocks = uniforms.outShape.z;
  let queryBlocks = uniforms.blockMaskShape.z;
  if (list < uniforms.outShape.x * uniforms.outShape.y * keyBlocks) {
    let head = list / keyBlocks;
    var count = 0;
    for (var queryBlock = 0; queryBlock < queryBlocks; queryBlock++) {
      if (blockMask[(head * queryBlocks + queryBlock) * keyBlocks + list % keyBlocks] != 0) {
        count += 1;
        result[list * (queryBlocks + 1) + count] = queryBlock;
      }
    }
    result[list * (queryBlocks + 1)] = count;
  }
}
