// An invocation packs two values.

fn packedFloat16(x : vec4<f32>) -> vec2<u32> {
  let bits = bitcast<vec4<u32>>(x);
  let isFinite = (bits & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  let y = select(vec4<f32>(0.0), clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
  let fraction = select(vec4<u32>(0u), vec4<u32>(0x200u), (bits & vec4<u32>(0x7fffffu)) != vec4<u32>(0u));
  let others = select(((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u)) | vec4<u32>(0x7c00u) | fraction, vec4<u32>(0u), isFinite);
  return vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)) | others.xz | (others.yw << vec2<u32>(16u));
}

fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = i32(packedFloat16(vec4<f32>(x[2 * index], x[2 * index + 1], 0.0, 0.0)).x);
  }
}
