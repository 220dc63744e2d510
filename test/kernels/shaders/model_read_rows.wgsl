// An invocation unpacks two values.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let rowWords = uniforms.cacheShape.w;
  let headWords = uniforms.outShape.z * rowWords;
  let word = workgroupIndex() * 64 + i32(localIndex);
  if (word >= uniforms.outShape.y * headWords) {
    return;
  }
  let head = uniforms.firstHead + word / headWords;
  let pair = unpack2x16float(bitcast<u32>(cache[head * uniforms.cacheShape.z * rowWords + word % headWords]));
  result[2 * word] = pair.x;
  result[2 * word + 1] = pair.y;
}
