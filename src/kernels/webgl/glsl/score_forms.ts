import type {Uniforms} from '../runtime/program.js';
import type {WebGLCall} from '../webgl_call.js';
import type {FormedScores} from './score_tile.js';
import {maskedScore} from './score_tile.js';

/** What a call makes of scores before its mask: soft cap, slopes, window. */
export interface ScoreForms {
  softCap?: true;
  slopes?: true;
  window?: true;
  /** Not the score, but its derivative by what is capped; 1 for a key that is not seen. */
  derivative?: true;
}

/** Those of a call; nothing where there are none. */
export function scoreForms({geometry, softCap, tensors}: WebGLCall): ScoreForms | undefined {
  const forms: ScoreForms = {
    ...(softCap !== undefined && {softCap: true}),
    ...(tensors.alibiSlopes && {slopes: true}),
    ...(geometry.window !== undefined && {window: true}),
  };
  return Object.keys(forms).length > 0 ? forms : undefined;
}

/** The cap, in units of log2. */
export const capFloats = ({softCap = 0}: WebGLCall): Uniforms => ({
  softCap: softCap * Math.LOG2E,
  inverseSoftCap: 1 / (softCap * Math.LOG2E),
});

/** Statement in the body of `compute`: the slope of the head's rows. */
export const slopeOfHead = (forms?: ScoreForms): string =>
  forms?.slopes ? `slope = ${Math.LOG2E} * readAlibiSlopes(group.head % heads, 0).x;\n  ` : '';

/** `formed(scores, distances)`: four scores by how far the key of each stands before its row. */
export function formedScores(causal: boolean, forms?: ScoreForms): FormedScores | undefined {
  return forms && {text: formedText(causal, forms), hidden: forms.derivative ? '1.0' : maskedScore};
}

function formedText(causal: boolean, {softCap, slopes, window, derivative}: ScoreForms): string {
  const distance = causal ? 'distances' : 'abs(distances)';
  return `${
    softCap
      ? `
// By its series where the quotient would lose digits.
vec4 softTanh(vec4 x) {
  vec4 power = exp2(${-2 * Math.LOG2E} * abs(x));
  vec4 square = x * x;
  vec4 series = x * (1.0 + square * (${-1 / 3} + square * (${2 / 15} - ${17 / 315} * square)));
  return mix(sign(x) * (1.0 - power) / (1.0 + power), series, lessThan(abs(x), vec4(0.25)));
}`
      : ''
  }${slopes ? '\nfloat slope;' : ''}
vec4 formed(vec4 scores, ivec4 distances) {${
    derivative
      ? `
  vec4 x = softTanh(scores * inverseSoftCap);
  return 1.0 - x * x;`
      : `${softCap ? '\n  scores = softCap * softTanh(scores * inverseSoftCap);' : ''}${
          slopes ? `\n  scores -= slope * vec4(${distance});` : ''
        }
  return ${window ? `mix(scores, vec4(${maskedScore}), greaterThanEqual(${distance}, ivec4(window)))` : 'scores'};`
  }
}`;
}

/** Expression: what a sink of `head` weighs beside weights relative to `maximum`; bounded, as what is beside so heavy a sink is nothing. */
export const sinkWeight = (maximum: string): string =>
  `exp2(min(${Math.LOG2E} * readSinks(head % heads, 0).x - ${maximum}, 126.0))`;
