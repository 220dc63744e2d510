// An invocation unpacks eight values, a quarter of a group.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return unpack2x16float(bitcast<u32>(scales[group]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 4;
  let q = bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u);
  return scale.x * (vec4<f32>(q) - 8.0);
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}

fn float16Word(x : vec2<f32>) -> i32 {
  return bitcast<i32>(pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn float16Words(a : vec4<f32>, b : vec4<f32>) -> vec4<i32> {
  return vec4<i32>(float16Word(a.xy), float16Word(a.zw), float16Word(b.xy), float16Word(b.zw));
}

fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  if (item >= uniforms.outShape.x * uniforms.outShape.y / 4) {
    return;
  }
  let group = item / 4;
  let part = 2 * (item % 4);
  let scale = scaleOf(group);
  result[item] = float16Words(unpack4(group, part, scale), unpack4(group, part + 1, scale));
}
