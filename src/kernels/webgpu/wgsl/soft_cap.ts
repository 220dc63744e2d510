const softTanh = `
// By its series where the quotient would lose digits. The power of two is at most 1: tanh of WGSL may overflow.
fn softTanh(x : f32) -> f32 {
  let power = exp2(${-2 * Math.LOG2E}f * abs(x));
  let square = x * x;
  let series = x * (1.0 + square * (${-1 / 3}f + square * (${2 / 15}f - ${17 / 315}f * square)));
  return select(sign(x) * (1.0 - power) / (1.0 + power), series, abs(x) < 0.25);
}
`;

/** Half the instructions. Its error is 2⁻²³ of the cap: up to this cap, in units of log2, far below that of float16 products. */
const shortSoftTanh = `
  if (uniforms.softCap < 1024.0) {
    let power = exp2(min(${2 * Math.LOG2E}f * (score * uniforms.inverseSoftCap), 126.0));
    return fma(-2.0 * uniforms.softCap, 1.0 / (power + 1.0), uniforms.softCap);
  }`;

/**
 * The `ScoreHook` of a soft cap: `softCap · tanh(score / softCap)`, by the uniforms `softCap`, in units of log2, and
 * `inverseSoftCap`.
 */
export const softCapHook = (float16: boolean) => ({
  functions: `${softTanh}
fn cappedScore(score : f32) -> f32 {${float16 ? shortSoftTanh : ''}
  return uniforms.softCap * softTanh(score * uniforms.inverseSoftCap);
}`,
  ofRow: () => '',
  scoreOf: (score: string) => `cappedScore(${score})`,
});

/** A function: how fast a score rises with what was capped. */
export const capSlopeFunction = `
fn capSlope(score : f32) -> f32 {
  let x = softTanh(score * uniforms.inverseSoftCap);
  return 1.0 - x * x;
}`;
