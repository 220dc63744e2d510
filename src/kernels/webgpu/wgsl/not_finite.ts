/** Shader text: which of four values are NaN or infinite. By their bits: compilers may take it that there are none. */
export const notFinite = `
fn notFinite(x : vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}`;

/**
 * Shader text: log2 of a sum of weights. A NaN among them makes it a NaN, which log2 need not do; and it need not even be in the
 * sum, since exp2 of a NaN is infinite on some devices.
 */
export const logOfSum = `
fn logOfSum(sum : f32) -> f32 {
  let bits = bitcast<u32>(sum);
  return select(log2(sum), bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}`;

/** Shader text: min of a number and a limit, where what is not finite stays so. */
export const atMost = `
fn atMost(x : f32, limit : f32) -> f32 {
  return select(x, limit, x > limit && x < 3.4e38f);
}`;
