import {check, describe} from '../ops/check_arguments.js';
import type {PBSAttentionOptions} from '../ops/options.js';

/** A call that is to come. */
export interface AttentionShape {
  /** Sequences. Default 1. */
  batch?: number;
  /** Heads of the query. */
  heads: number;
  /** Heads of key and value. Default `heads`. */
  keyValueHeads?: number;
  /** Rows of the query. */
  queryLength: number;
  /** Keys. Default `queryLength`. */
  keyLength?: number;
  /** Values of a row of query and key. */
  headDim: number;
  /** Values of a row of the value. Default `headDim`. */
  valueDim?: number;
  /** As `pbsAttention` gets them; `{threshold: 1}` for `flashAttention`. What `auto` chooses for the shape is compiled. Default: its own. */
  options?: Omit<PBSAttentionOptions, 'plan' | 'onReport' | 'keyLengths'>;
  /** Whether the gradients by query, key and value are wanted, too. Default `false`. */
  gradients?: boolean;
}

const sizes = ['batch', 'heads', 'keyValueHeads', 'queryLength', 'keyLength', 'headDim', 'valueDim'] as const;
const known: readonly string[] = [...sizes, 'options', 'gradients'];

/** @throws Error that names `op` and `name` if a shape is not of that form. */
export function checkShape(
  op: string,
  name: string,
  shape: AttentionShape,
  takes = '{heads, queryLength, headDim}',
): void {
  check(typeof shape === 'object' && shape !== null, op, name, `got ${describe(shape)}`, takes);
  for (const part of Object.keys(shape)) check(known.includes(part), op, name, `got '${part}'`, known.join(', '));
  for (const part of sizes) {
    const size = shape[part];
    const isNeeded = part === 'heads' || part === 'queryLength' || part === 'headDim';
    const isSize = Number.isSafeInteger(size) && size! > 0;
    const isFine = isSize || (size === undefined && !isNeeded);
    check(isFine, op, `${name}.${part}`, `got ${describe(size)}`, 'a positive integer');
  }
}

/** The shapes of its query, key and value. */
export function shapesOf(shape: AttentionShape): [query: number[], key: number[], value: number[]] {
  const {batch = 1, heads, keyValueHeads = heads, queryLength, keyLength = queryLength, headDim} = shape;
  const {valueDim = headDim} = shape;
  return [
    [batch, heads, queryLength, headDim],
    [batch, keyValueHeads, keyLength, headDim],
    [batch, keyValueHeads, keyLength, valueDim],
  ];
}
