import type {WebGPUCall} from '../webgpu_call.js';
import type {MaskType} from './attention_mask.js';
import {maskHook} from './attention_mask.js';
import {slopesHook, windowHook} from './position_hooks.js';
import {capSlopeFunction, softCapHook} from './soft_cap.js';

/**
 * What a form of attention makes of a score, in units of log2, before the softmax. Programs apply the hooks of a call in turn
 * wherever they compute a score, in attend and in the gradients alike.
 */
export interface ScoreHook {
  /** Functions that the texts below call. They may read `uniforms` and the inputs of the call. */
  functions: string;
  /** Statements before the scores of a row: what they share. Of expressions for its head and its number in the query, and its slope. */
  ofRow: (head: string, row: string, slope?: string) => string;
  /** Expression: the score of that row with the key at `position`. */
  scoreOf: (score: string, position: string) => string;
}

/** What a form says of scores. */
export interface ScoreForm {
  causal: boolean;
  softCap?: true;
  /** Whether it is by a shorter text (`shortCap`). */
  isShortCap?: true;
  /** Whether there are slopes: in `headForms`, where nothing else hands them on. */
  slopes?: true;
  window?: true;
  /** Type of the mask, if there is one. */
  mask?: MaskType;
}

/** Without `causal`, and without what a call does not have: variants of calls without forms stay as they are. */
export const scoreForm = ({geometry, softCap, alibiSlopes, mask}: WebGPUCall): Omit<ScoreForm, 'causal'> => ({
  ...(softCap !== undefined && {softCap: true}),
  ...(alibiSlopes && {slopes: true}),
  ...(geometry.window !== undefined && {window: true}),
  ...(mask && {mask: mask.dtype as MaskType}),
});

/** In the order of transformers and FlashAttention: soft cap, slopes, masks. */
const hooksOf = ({causal, softCap, slopes, window, mask, isShortCap}: ScoreForm): ScoreHook[] => [
  ...(softCap ? [softCapHook(isShortCap === true)] : []),
  ...(slopes ? [slopesHook(causal)] : []),
  ...(mask ? [maskHook(mask)] : []),
  // Behind what adds to scores: a masked score stays the one that it is.
  ...(window ? [windowHook] : []),
];

/** Shader text: the hooks of a form together. */
export const hookFunctions = (form: ScoreForm): string =>
  hooksOf(form)
    .map(({functions}) => functions)
    .join('');

export const hooksOfRow = (form: ScoreForm, head: string, row: string, slope?: string): string[] =>
  hooksOf(form)
    .map(({ofRow}) => ofRow(head, row, slope))
    .filter((text) => text !== '');

export const hookedScore = (form: ScoreForm, score: string, position: string): string =>
  hooksOf(form).reduce((so, {scoreOf}) => scoreOf(so, position), score);

/** Shader text for gradients, after `hookFunctions`. */
export const derivativeFunctions = ({softCap}: ScoreForm): string => (softCap ? capSlopeFunction : '');

/** Expression: the derivative of the score by what the first hook was given; none where it is 1. */
export const scoreDerivative = ({softCap}: ScoreForm, score: string): string | undefined =>
  softCap && `capSlope(${score})`;
