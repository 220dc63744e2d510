import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {concat, fill, slice} from '@tensorflow/tfjs-core';
import {listedIntegers} from './attention_inputs.js';
import type {AttentionTensors} from './attention_tensors.js';
import {rowDim} from '../attention/attention_kernels.js';
import {check} from './check_arguments.js';
import type {AttentionOptions} from './options.js';

/*
 * Batches whose entries have places of their own: each entry is a call, of its keys from the first that is not padding on and of the rows
 * that stand there. What is padding is not even looked at, and an entry gives what it gives without padding.
 */

const isList = (x: unknown): boolean => typeof x === 'object' && x !== null;

export const hasEntries = (options: AttentionOptions | undefined): options is AttentionOptions =>
  options?.keyStarts !== undefined || isList(options?.queryOffset);

/** What all entries have in common, to be checked before anything is launched. */
export const commonOptions = <Options extends AttentionOptions>(options: Options | undefined): Options | undefined =>
  hasEntries(options) ? {...(options as Options), queryOffset: undefined} : options;

/** Attends to each entry by itself, over parts of the tensors: gives results whose first dimension is the batch, the third the rows. */
type AttendEntry<Options> = (query: Tensor4D, key: Tensor4D, value: Tensor4D, options: Options) => Tensor[];

/**
 * The results of all entries together. Throws unless the options are of their form.
 *
 * @param options with `mask` of rank 4, if there is one.
 * @param attend at the entry's own `queryOffset` and `keyLengths`.
 * @param unseen what stands in the results for rows `[1, heads, rows, …]` before the first key: shapes are those of results.
 */
export function attendByEntry<Options extends AttentionOptions & {mask?: Tensor}>(
  op: string,
  {query, key, value}: AttentionTensors,
  options: Options,
  attend: AttendEntry<Options>,
  unseen: Array<(rows: number) => Tensor>,
): Tensor[] {
  const [batch, heads, queryLength, headDim] = query.shape;
  const [, keyValueHeads, keyLength] = value.shape;
  // Entries are slices, and tfjs's pass int32 through float32.
  const packed = 'got packed float16 with positions for each entry';
  check(key.dtype === 'float32', op, 'key', packed, 'float32 there');
  const {causal = true, mask} = options;
  const counts = causal || options.window !== undefined || options.alibiSlopes !== undefined;
  const shapes = `got query [${query.shape}] with key [${key.shape}]`;
  check(!causal || queryLength <= keyLength, op, 'query', shapes, 'no more rows than keys, or causal: false');
  const lastOffset = causal ? keyLength - queryLength : keyLength;
  const listed = (name: 'keyStarts' | 'keyLengths' | 'queryOffset', last: number, otherwise: number): number[] => {
    const {[name]: given = otherwise} = options;
    // One position is that of all entries.
    const isOne = given === otherwise || name === 'queryOffset';
    const list = isOne && typeof given === 'number' ? new Array<number>(batch).fill(given) : given;
    return listedIntegers(op, name, list, batch, last, `${batch} integers from 0 to ${last}`);
  };
  const starts = listed('keyStarts', keyLength, 0);
  const ends = listed('keyLengths', keyLength, keyLength);
  const offsets = listed('queryOffset', lastOffset, Math.max(0, keyLength - queryLength));
  check(
    mask === undefined || options.keyStarts === undefined,
    op,
    'mask',
    'got one with keyStarts',
    'one of both: a mask can hide keys',
  );
  // Without a causal mask, a window and slopes, rows stand beside the keys where they are as many.
  const haveRowsPlaces = counts || queryLength === keyLength;
  const results = starts.map((start, entry) => {
    const first = Math.min(haveRowsPlaces ? Math.max(0, start - offsets[entry]) : 0, queryLength);
    const rows = start < keyLength ? queryLength - first : 0;
    const none = unseen.map((of) => (rows < queryLength ? [of(queryLength - rows)] : []));
    if (rows === 0) return none.map(([x]) => x);
    const keys = keyLength - start;
    const ofEntry = <T extends Tensor>(x: T, from: number, size: number[]) =>
      slice(x, [entry, 0, from, 0], [1, ...size]) as T;
    const found = attend(
      ofEntry(query, first, [heads, rows, headDim]),
      ofEntry(key, start, [keyValueHeads, keys, key.shape[3]]),
      ofEntry(value, start, [keyValueHeads, keys, value.shape[3]]),
      {
        ...options,
        keyStarts: undefined,
        queryOffset: counts ? Math.max(0, offsets[entry] - start) : undefined,
        keyLengths: options.keyLengths && [Math.max(0, ends[entry] - start)],
        ...(mask && mask.shape[0] > 1 && {mask: ofEntry(mask, 0, mask.shape.slice(1))}),
      },
    );
    return found.map((x, i) => concat([...none[i], x], 2));
  });
  return unseen.map((_, i) => (batch === 1 ? results[0][i] : concat(results.map((ofEntry) => ofEntry[i]))));
}

/** What stands for outputs of rows that see nothing. */
export const zeroRows =
  ({query, value}: AttentionTensors) =>
  (rows: number): Tensor =>
    fill([1, query.shape[1], rows, rowDim(value)], 0);
