/**
 * Shader text: log2 of sums of weights. A NaN among them makes a sum a NaN, which log2 need not do; and it need not even be in the
 * sum, since exp2 of a NaN is infinite on some devices.
 */
export const logOfSums = `
vec4 logOfSums(vec4 sums) {
  uvec4 bits = floatBitsToUint(sums);
  bvec4 notFinite = equal(bits & uvec4(0x7f800000u), uvec4(0x7f800000u));
  return mix(log2(sums), uintBitsToFloat(bits | uvec4(0x7fc00000u)), notFinite);
}`;
