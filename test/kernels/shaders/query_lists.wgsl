// An invocation writes the list of one key block, going down its column of the mask; neighbours read neighbours.
fn main(list : i32) {
  if (list < uniforms.invocations) {
    let keyBlocks = uniforms.outShape.z;
    let queryBlocks = uniforms.blockMaskShape.z;
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
