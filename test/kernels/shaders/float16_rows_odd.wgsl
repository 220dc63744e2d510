// An invocation brings eight values of a row to float16.
fn readValues(row : i32, vector : i32) -> vec4<f32> { return vec4<f32>(select(0.0, x[row * 10 + 4 * vector + 0], 4 * vector + 0 < 10), select(0.0, x[row * 10 + 4 * vector + 1], 4 * vector + 1 < 10), select(0.0, x[row * 10 + 4 * vector + 2], 4 * vector + 2 < 10), select(0.0, x[row * 10 + 4 * vector + 3], 4 * vector + 3 < 10)); }

fn saturated(x : vec4<f32>) -> vec4<f32> {
  let isFinite = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  return select(x, clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
}

fn packed(x : vec4<f32>) -> vec2<i32> {
  let y = saturated(x);
  return bitcast<vec2<i32>>(vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)));
}

fn main(index : i32) {
  if (index < uniforms.invocations) {
    let row = index / 2;
    let vector = 2 * (index % 2);
    result[index] = vec4<i32>(packed(readValues(row, vector)), packed(readValues(row, vector + 1)));
  }
}
