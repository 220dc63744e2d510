// A workgroup takes the key or the value of one head of one token, an invocation two values that stand in one word.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn rowOf(token : i32, head : i32) -> i32 {
  return token * uniforms.projectedShape.y + head * 64;
}

fn rowScale(token : i32, head : i32) -> f32 {
  return 1.0;
}

fn rotated(token : i32, head : i32, column : i32, scale : f32) -> f32 {
  let first = rowOf(token, head);
  let partner = (column + 32) % 64;
  let angle = (span[0] + token) * 64 + column;
  return projected[first + column] * cos[angle] + projected[first + partner] * signedSin[angle];
}

fn main(index : i32) {
  let local = i32(min(localIndex, 31u));
  let keyHeads = uniforms.outShape.y;
  let token = workgroupIndex() / (2 * keyHeads);
  if (token >= span[1]) {
    return;
  }
  let stored = workgroupIndex() % (2 * keyHeads);
  // After the queries come the keys, then the values.
  let head = uniforms.heads + stored;
  let first = rowOf(token, head) + 2 * local;
  var pair = vec2<f32>(projected[first], projected[first + 1]);
  if (stored < keyHeads) {
    let scale = rowScale(token, head);
    pair = vec2<f32>(rotated(token, head, 2 * local, scale), rotated(token, head, 2 * local + 1, scale));
  }
  let row = stored * uniforms.outShape.z + span[0] + token;
  result[row * 32 + local] = bitcast<i32>(pack2x16float(pair));
}
