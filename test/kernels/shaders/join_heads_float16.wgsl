// An invocation brings eight values of a row of a head to their place in the row of all heads.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn float16Word(x : vec2<f32>) -> i32 {
  return bitcast<i32>(pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn float16Words(a : vec4<f32>, b : vec4<f32>) -> vec4<i32> {
  return vec4<i32>(float16Word(a.xy), float16Word(a.zw), float16Word(b.xy), float16Word(b.zw));
}

fn main(index : i32) {
  let item = workgroupIndex() * 64 + i32(localIndex);
  let vectors = uniforms.outShape.y / 4;
  let row = item / vectors;
  if (row >= uniforms.outShape.x) {
    return;
  }
  let vectorsOfHead = uniforms.xShape.w / 8;
  let head = item % vectors / vectorsOfHead;
  let source = 2 * ((head * uniforms.outShape.x + row) * vectorsOfHead + item % vectorsOfHead);
  result[item] = float16Words(x[source], x[source + 1]);
}
