/**
 * Shader text: `float16Word(x)`, two values as a word, and `float16Words(a, b)`, eight. `pack2x16float` is in WGSL without the extension
 * f16, but says nothing of values that float16 does not reach.
 */
export const packText = `
fn float16Word(x : vec2<f32>) -> i32 {
  return bitcast<i32>(pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn float16Words(a : vec4<f32>, b : vec4<f32>) -> vec4<i32> {
  return vec4<i32>(float16Word(a.xy), float16Word(a.zw), float16Word(b.xy), float16Word(b.zw));
}`;
