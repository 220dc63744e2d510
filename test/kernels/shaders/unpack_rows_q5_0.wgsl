// An invocation unpacks four values of a row.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return unpack2x16float(bitcast<u32>(scales[group]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 5;
  let high = bitcast<u32>(quants[at + 4 + part / 8]) >> u32(4 * (part % 8));
  let q = (bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u)) |
    (((vec4<u32>(high) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u)) << vec4<u32>(4u));
  return scale.x * (vec4<f32>(q) - 16.0);
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}

fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  let vectors = uniforms.outShape.y / 4;
  let id = item / vectors;
  if (id >= uniforms.outShape.x) {
    return;
  }
  let row = ids[id] - uniforms.firstRow;
  if (row < 0 || row >= uniforms.rows) {
    return;
  }
  let vector = item % vectors;
  let group = row * (vectors / 8) + vector / 8;
  result[item] = uniforms.scale * unpack4(group, vector % 8, scaleOf(group));
}
