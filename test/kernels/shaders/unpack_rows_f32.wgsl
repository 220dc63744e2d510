// An invocation unpacks four values of a row.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return vec2<f32>(bitcast<f32>(scales[0]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 32 + part * 4;
  return scale.x * bitcast<vec4<f32>>(vec4<u32>(bitcast<u32>(quants[at + 0]), bitcast<u32>(quants[at + 1]), bitcast<u32>(quants[at + 2]), bitcast<u32>(quants[at + 3])));
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
