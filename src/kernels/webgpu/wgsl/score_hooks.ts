import type {MaskType} from './attention_mask.js';
import {maskHook} from './attention_mask.js';

/**
 * What a form of attention makes of a score, in units of log2, before the softmax. Programs apply the hooks of a call in turn
 * wherever they compute a score, in attend and in the gradients alike.
 */
export interface ScoreHook {
  /** Functions that the texts below call. They may read `uniforms` and the inputs of the call. */
  functions: string;
  /** Statements before the scores of a row: what they share. Of expressions for its head and its number in the query. */
  ofRow: (head: string, row: string) => string;
  /** Expression: the score of that row with the key at `position`. */
  scoreOf: (score: string, position: string) => string;
}

/** What a form says of scores. */
export interface ScoreForm {
  /** Type of the mask, if there is one. */
  mask?: MaskType;
}

const hooksOf = ({mask}: ScoreForm): ScoreHook[] => (mask ? [maskHook(mask)] : []);

/** Shader text: the hooks of a form together. */
export const hookFunctions = (form: ScoreForm): string =>
  hooksOf(form)
    .map(({functions}) => functions)
    .join('');

export const hooksOfRow = (form: ScoreForm, head: string, row: string): string[] =>
  hooksOf(form).map(({ofRow}) => ofRow(head, row));

export const hookedScore = (form: ScoreForm, score: string, position: string): string =>
  hooksOf(form).reduce((so, {scoreOf}) => scoreOf(so, position), score);
