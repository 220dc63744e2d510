import {unroll} from '../../unroll.js';
import type {Uniforms} from '../runtime/program.js';

/** A score that no key gets which a row may see; finite, so that no difference of two scores is NaN. */
export const maskedScore = '-1e30';

/** Where a row's maximum starts: above masked scores, so that their weights are 0 even in a row that sees nothing yet. */
export const noMaximum = '-1e29';

/**
 * Shader text: the row of `key` and `value` at which the keys of query head `head` of `[batch * heads]` start. Grouped
 * heads read the same rows; nothing is repeated.
 */
export const keyBase = `
int keyBase(int head) {
  return ((head / heads) * keyValueHeads + (head % heads) / (heads / keyValueHeads)) * keyLength;
}`;

/**
 * Shader text for the body of `compute`: writes to `result0`, `result1`, … the scores of as many keys as there are draw
 * buffers, each with four query rows, in units of log2: the uniform `logitScale` is that of `logitScale`.
 *
 * A tile of 4 × 8 scores fetches 12 vectors for 32 products of them; a lone score would fetch 2 for one. Fetches are what
 * bounds a fragment shader, and the draw buffers what bounds the tile.
 *
 * Expects in scope: `head`, `queries` (ivec4: which rows of the query the four are), `firstKey` (the row at which the head's
 * keys start), `positions0` and, for 8 keys, `positions1` (ivec4: their places after it), `keys0` and `keys1` (original
 * indices, −1 for none). A row past the last query repeats the last one; nobody reads what becomes of it.
 *
 * @param byKey as `visibleScore` has it, and `places`.
 */
export function writeScores(
  headDim: number,
  keys: number,
  {byKey, places}: {byKey?: boolean; places?: string} = {},
): string {
  return `${tileProducts(headDim, keys)}
  ${unroll(keys, (k) => `result${k} = ${visibleScore(k, byKey, places)};`, '\n  ')}`;
}

/**
 * Shader text: the score of key k of `tileProducts`, masked and in units of log2.
 *
 * @param byKey whether a mask tensor counts, by `maskByKeyText`.
 * @param places ivec4: where the rows stand among those of their heads.
 */
export function visibleScore(k: number, byKey = false, places = 'queries'): string {
  const key = componentOf('keys', k);
  const score = `visible(${key}, ${places}, logitScale * score${k})`;
  return byKey ? `masked(${score}, maskOf(head, queries, ivec4(${key})))` : score;
}

/** Factor of products whose exponential is taken by exp2. */
export const logitScale = (scale: number): Uniforms => ({logitScale: scale * Math.LOG2E});

/** Shader text: component i of two ivec4, `name0` and `name1`. */
const componentOf = (name: string, i: number) => `${name}${Math.floor(i / 4)}[${i % 4}]`;

/**
 * Shader text for the body of `compute`: `positions0`, … and `keys0`, … of a tile, where keys stand in their own order. Needs
 * `scoreTexts`.
 */
export function keysOfTile(keys: number, first: string, tiles: string, end: string): string {
  return unroll(
    keys / 4,
    (i) => `ivec4 positions${i} = ${first} + (ivec4(0, 1, 2, 3) + ${4 * i}) * ${tiles};
  ivec4 keys${i} = orNone(positions${i}, ${end});`,
    '\n  ',
  );
}

/** The products of queries and keys of `writeScores`, not scaled yet, in `score0`, `score1`, … */
export function tileProducts(headDim: number, keys: number): string {
  return `
  ${unroll(4, (q) => `ivec2 query${q} = queryAt(head * queryLength + min(queries[${q}], queryLength - 1));`, '\n  ')}
  ${unroll(keys, (k) => `ivec2 key${k} = keyAt(firstKey + min(${componentOf('positions', k)}, keyLength - 1));`, '\n  ')}
  ${unroll(keys, (k) => `vec4 score${k} = vec4(0.0);`, '\n  ')}
  for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
    ${unroll(4, (q) => `vec4 q${q} = fetchQuery(query${q}, v, 0);`, '\n    ')}
    vec4 k;
    ${unroll(
      keys,
      (k) =>
        `k = fetchKey(key${k}, v, 0);
    score${k} += vec4(dot(q0, k), dot(q1, k), dot(q2, k), dot(q3, k));`,
      '\n    ',
    )}
  }`;
}

/** Shader text: `takeScores` of a tile of the texture `scores`, a layer a key. Expects `at`, the place of the row, in scope. */
export function takeTile(keys: number, tile: string): string {
  return `${unroll(keys, (k) => `vec4 s${k} = fetchScores(at, ${tile}, ${k});`)}
    ${takeScores(keys)}`;
}

/** Shader text: where the online softmax of four rows starts. */
export const noScores = `vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);`;

/**
 * Shader text, a step of the online softmax of four rows: takes the scores of a tile of keys, `s0`, `s1`, …, into their
 * maximum `rowMax` and the sum `rowSum` of exp2(score − maximum).
 */
export const takeScores = (keys: number) => `vec4 newMax = rowMax;
    ${unroll(keys, (k) => `newMax = max(newMax, s${k});`)}
    rowSum *= exp2(rowMax - newMax);
    ${unroll(keys, (k) => `rowSum += exp2(s${k} - newMax);`)}
    rowMax = newMax;`;

/** Shader text: `orNone(positions, end)`, the positions, with −1 for those from the end on. */
export const orNone = `
ivec4 orNone(ivec4 positions, int end) {
  return ivec4(mix(vec4(positions), vec4(-1.0), greaterThanEqual(positions, ivec4(end))));
}`;

/** What forms make of scores before these are masked (`score_forms.ts`). */
export interface FormedScores {
  /** Shader text: `formed(scores, distances)`. */
  text: string;
  /** What stands for the score of a key that is not seen. */
  hidden: string;
}

/** Shader text: scores of a key, in their forms, masked where it is none or is not seen. */
export function visibleScores(causal: boolean, forms?: FormedScores): string {
  const {text = '', hidden = maskedScore} = forms ?? {};
  return `${text}
vec4 visible(int key, ivec4 queries, vec4 scores) {
  if (key < 0) {
    return vec4(${hidden});
  }${forms ? '\n  scores = formed(scores, queries + queryOffset - key);' : ''}
  return ${causal ? `mix(scores, vec4(${hidden}), greaterThan(ivec4(key - queryOffset), queries))` : 'scores'};
}`;
}

/** Shader text that `keysOfTile` and `writeScores` need. */
export const scoreTexts = (causal: boolean, forms?: FormedScores) => `${orNone}
${visibleScores(causal, forms)}`;
