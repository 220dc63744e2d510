/**
 * A rule that estimates what each query block pays to each key block. Written as a name, `ESTIMATE[+CHANGE...]`:
 *
 * - `pooled`: products of mean queries and mean keys, as in the paper;
 * - `pool-QxK`: the same with means over Q query rows and K keys, added up by block;
 * - `antidiagonal-S`: sums of products along antidiagonals of S by S tiles (XAttention, arXiv 2503.16428);
 * - `mass`: what all rows really pay, the best that an estimate can be, as dear as half of attention;
 * - `strided-N`, `outlying-N`, `longest-N`, `sinkless-N`: what N rows of each query block really pay: every so-many-th; those
 *   farthest from the block's mean query; those of the greatest length; those whose product with key 0, the attention
 *   sink, is least; several kinds together as `strided-8/sinkless-8`.
 *
 * Changes:
 * - `max`, `mix`: of several rows the largest share instead of the mean; or both, each as a share, added;
 * - `peak`: the mean of the strided rows, plus a tenth of the largest share that one of the other rows pays;
 * - `smooth`: the mean of rows is averaged with those of the query blocks before and after, which count half;
 * - `pooled`: a quarter of the mean of rows is replaced by the pooled estimate;
 * - `own`: the own segment, always kept, counts as kept when the threshold is reached;
 * - `group`: one key order for the query heads that share a key head;
 * - `unpermuted`: keys in their own order;
 * - `paper`: the last query block is estimated like all others, not by its exact mass.
 */
export interface Candidate {
  name: string;
  estimate: Estimate;
  changes: Set<Change>;
}

export type Rows = 'strided' | 'outlying' | 'longest' | 'sinkless';

export interface RowChoice {
  choice: Rows;
  /** Rows of each query block. */
  count: number;
}

export type Estimate =
  | {kind: 'pool'; queries: number; keys: number}
  | {kind: 'pooled'}
  | {kind: 'antidiagonal'; stride: number}
  | {kind: 'mass'}
  | {kind: 'rows'; choices: RowChoice[]};

const CHANGES = ['max', 'mix', 'peak', 'smooth', 'pooled', 'own', 'group', 'unpermuted', 'paper'] as const;
export type Change = (typeof CHANGES)[number];

const ACCEPTED =
  'pooled, mass, pool-QxK, antidiagonal-S, or strided-N, outlying-N, longest-N, sinkless-N with / between, then any of ' +
  CHANGES.map((change) => `+${change}`).join(', ');

export function parseCandidate(name: string): Candidate {
  const [first, ...rest] = name.split('+');
  const estimate = parseEstimate(first);
  if (estimate === undefined || rest.some((change) => !CHANGES.includes(change as Change))) {
    throw new Error(`candidate is "${name}"; accepted: ${ACCEPTED}`);
  }
  const changes = new Set(rest as Change[]);
  if (changes.has('peak') && !(estimate.kind === 'rows' && isMixed(estimate.choices))) {
    throw new Error(`candidate is "${name}"; accepted with +peak: strided and other rows, as strided-8/sinkless-4`);
  }
  return {name, estimate, changes};
}

const ROWS: readonly Rows[] = ['strided', 'outlying', 'longest', 'sinkless'];

function parseEstimate(text: string): Estimate | undefined {
  if (text === 'pooled' || text === 'mass') return {kind: text};
  const pool = /^pool-([1-9]\d*)x([1-9]\d*)$/.exec(text);
  if (pool) return {kind: 'pool', queries: Number(pool[1]), keys: Number(pool[2])};
  const antidiagonal = /^antidiagonal-([1-9]\d*)$/.exec(text);
  if (antidiagonal) return {kind: 'antidiagonal', stride: Number(antidiagonal[1])};
  const choices = text.split('/').map((part) => {
    const [, name, count] = /^([a-z]+)-([1-9]\d*)$/.exec(part) ?? [];
    return {choice: ROWS.find((rows) => rows === name)!, count: Number(count)};
  });
  return choices.every(({choice}) => choice !== undefined) ? {kind: 'rows', choices} : undefined;
}

const isMixed = (choices: readonly RowChoice[]) =>
  choices.some(({choice}) => choice === 'strided') && choices.some(({choice}) => choice !== 'strided');

/**
 * Multiply-adds of the estimate over those of exact causal attention, both products. Rows that must be chosen cost a
 * product with one vector each; means and sums are not counted.
 */
export function costShare({estimate, changes}: Candidate, blockSize: number, length: number): number {
  const pooled = 1 / (2 * blockSize ** 2);
  switch (estimate.kind) {
    case 'pooled':
      return pooled;
    case 'mass':
      return 1 / 2;
    case 'pool':
      return 1 / (2 * estimate.queries * estimate.keys);
    case 'antidiagonal':
      return 1 / (2 * estimate.stride);
    case 'rows': {
      const rows = estimate.choices.reduce((sum, {count}) => sum + count, 0);
      const chosen = estimate.choices.filter(({choice}) => choice !== 'strided').length;
      return rows / (2 * blockSize) + chosen / length + (changes.has('pooled') ? pooled : 0);
    }
  }
}
