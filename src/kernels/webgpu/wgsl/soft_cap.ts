import type {WebGPUCall} from '../webgpu_call.js';

const cappedScore = `
// By its series where the quotient would lose digits. The power of two is at most 1: tanh of WGSL may overflow.
fn softTanh(x : f32) -> f32 {
  let power = exp2(${-2 * Math.LOG2E}f * abs(x));
  let square = x * x;
  let series = x * (1.0 + square * (${-1 / 3}f + square * (${2 / 15}f - ${17 / 315}f * square)));
  return select(sign(x) * (1.0 - power) / (1.0 + power), series, abs(x) < 0.25);
}

fn cappedScore(score : f32) -> f32 {
  return uniforms.softCap * softTanh(score * uniforms.inverseSoftCap);
}`;

/** Half the instructions; its error is 2⁻²³ of the cap. */
const shortCappedScore = `
fn cappedScore(score : f32) -> f32 {
  let power = exp2(min(score * (${2 * Math.LOG2E}f * uniforms.inverseSoftCap), 126.0));
  return fma(-2.0 * uniforms.softCap, 1.0 / (power + 1.0), uniforms.softCap);
}`;

/** Caps up to which that error is far below the one of float16 products. */
const largestShortCap = 512;

/** What a program of float16 products adds to its form. */
export const shortCap = ({softCap = Infinity}: Pick<WebGPUCall, 'softCap'>): {isShortCap?: true} =>
  softCap <= largestShortCap ? {isShortCap: true} : {};

/**
 * The `ScoreHook` of a soft cap: `softCap · tanh(score / softCap)`, by the uniforms `softCap`, in units of log2, and
 * `inverseSoftCap`.
 */
export const softCapHook = (isShort: boolean) => ({
  functions: isShort ? shortCappedScore : cappedScore,
  ofRow: () => '',
  scoreOf: (score: string) => `cappedScore(${score})`,
});

/** A function: how fast a score rises with what was capped. */
export const capSlopeFunction = `
fn capSlope(score : f32) -> f32 {
  let x = softTanh(score * uniforms.inverseSoftCap);
  return 1.0 - x * x;
}`;
