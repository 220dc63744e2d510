// An invocation packs two values.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let rowWords = uniforms.outShape.w;
  let rows = uniforms.keyShape.z;
  let words = uniforms.outShape.y * rows * rowWords;
  let item = workgroupIndex() * 64 + i32(localIndex);
  if (item >= 2 * words) {
    return;
  }
  let isValue = item >= words;
  let word = item % words;
  var pair = vec2<f32>();
  if (isValue) {
    pair = vec2<f32>(value[2 * word], value[2 * word + 1]);
  } else {
    pair = vec2<f32>(key[2 * word], key[2 * word + 1]);
  }
  let head = word / (rows * rowWords) + select(0, uniforms.outShape.y, isValue);
  let inHead = word % (rows * rowWords);
  result[(head * uniforms.outShape.z + uniforms.firstRow) * rowWords + inHead] = bitcast<i32>(pack2x16float(pair));
}
