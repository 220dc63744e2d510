// A workgroup takes the key or the value of one head, an invocation two values that stand in one word.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn rowScale(row : i32) -> f32 {
  return 1.0;
}

fn rotated(row : i32, column : i32, scale : f32) -> f32 {
  let partner = (column + 32) % 64;
  let angle = position[0] * 64 + column;
  return projected[row * 64 + column] * cos[angle] + projected[row * 64 + partner] * signedSin[angle];
}

fn main(index : i32) {
  let local = i32(localIndex);
  let keyHeads = uniforms.outShape.y;
  let head = workgroupIndex();
  if (head >= 2 * keyHeads) {
    return;
  }
  // After the queries come the keys, then the values.
  let row = uniforms.heads + head;
  var pair = vec2<f32>(projected[row * 64 + 2 * local], projected[row * 64 + 2 * local + 1]);
  if (head < keyHeads) {
    let scale = rowScale(row);
    pair = vec2<f32>(rotated(row, 2 * local, scale), rotated(row, 2 * local + 1, scale));
  }
  result[(head * uniforms.outShape.z + position[0]) * 32 + local] = bitcast<i32>(pack2x16float(pair));
}
