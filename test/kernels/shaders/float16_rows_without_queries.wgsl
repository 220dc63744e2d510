// An invocation brings eight values of a row to float16.
fn readKey(row : i32, vector : i32) -> vec4<f32> { return key[row * 16 + vector]; }
fn readValue(row : i32, vector : i32) -> vec4<f32> { return value[row * 20 + vector]; }


fn packedFloat16(x : vec4<f32>) -> vec2<u32> {
  let bits = bitcast<vec4<u32>>(x);
  let isFinite = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  let y = select(vec4<f32>(0.0), clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
  let fraction = select(vec4<u32>(0u), vec4<u32>(0x200u), (bits & vec4<u32>(0x7fffffu)) != vec4<u32>(0u));
  let others = select(((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | vec4<u32>(0x7c00u) | fraction, vec4<u32>(0u), isFinite);
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)) | others.xz | (others.yw << vec2<u32>(16u));
}

fn main(index : i32) {
  var a = vec4<f32>();
  var b = vec4<f32>();
  if (index >= uniforms.invocations) {
    return;
  } else if (index >= uniforms.firstValue) {
    a = readValue((index - uniforms.firstValue) / 10, 2 * ((index - uniforms.firstValue) % 10));
    b = readValue((index - uniforms.firstValue) / 10, 2 * ((index - uniforms.firstValue) % 10) + 1);
  } else if (index >= uniforms.firstKey) {
    a = readKey((index - uniforms.firstKey) / 8, 2 * ((index - uniforms.firstKey) % 8));
    b = readKey((index - uniforms.firstKey) / 8, 2 * ((index - uniforms.firstKey) % 8) + 1);
  }
  result[index] = bitcast<vec4<i32>>(vec4<u32>(packedFloat16(a), packedFloat16(b)));
}
