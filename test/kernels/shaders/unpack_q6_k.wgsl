// An invocation unpacks one group of a row. Neighbours take neighbouring rows, so that what they write lies together.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return bitcast<vec2<f32>>(vec2<i32>(scales[2 * group + 0], scales[2 * group + 1]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 6;
  let high = bitcast<u32>(quants[at + 4 + part / 4]) >> u32(8 * (part % 4));
  let q = (bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u)) |
    (((vec4<u32>(high) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u)) << vec4<u32>(4u));
  return select(scale.x, scale.y, part >= 4) * (vec4<f32>(q) - 32.0);
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}

fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  let outputs = uniforms.outShape.y;
  let groups = uniforms.outShape.x / 32;
  let row = item % outputs;
  let groupOfRow = item / outputs;
  if (groupOfRow >= groups) {
    return;
  }
  let group = row * groups + groupOfRow;
  let scale = scaleOf(group);
  for (var part = 0; part < 8; part++) {
    let values = unpack4(group, part, scale);
    let first = (groupOfRow * 32 + 4 * part) * outputs + row;
    result[first] = values.x;
    result[first + outputs] = values.y;
    result[first + 2 * outputs] = values.z;
    result[first + 3 * outputs] = values.w;
  }
}
