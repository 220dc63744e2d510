import type {AxisLength} from './axis_length.js';

/**
 * What is known of a tensor that a mask is made of, whatever its lengths: one value where the key is at or before the
 * query and another where it is after (the same, in a uniform tensor); or positions, counted along one of the last two
 * axes. `rank` is left out where it is not known.
 */
export type MaskForm = Triangle | Positions;

export interface Triangle {
  kind: 'triangle';
  /** Value where key <= query, with the last two axes for query and key. */
  visible: number;
  /** Value where key > query. */
  hidden: number;
  /** How many queries and keys it has, unless both values are the same: with 1 instead of all of them nothing is hidden. */
  size?: MaskSize;
  /** Of a tensor that is true or false, with which tfjs computes otherwise than TensorFlow, if at all. */
  isBool?: boolean;
  /** Of a uniform tensor, where they are known. */
  lengths?: AxisLength[];
  rank?: number;
}

export interface Positions {
  kind: 'positions';
  /** `query`: along the last axis but one, the last being 1 or repeating; `key`: along the last. */
  along: 'query' | 'key';
  /** The first position: a sum of a number and of lengths, each so many times. */
  first: LengthSum;
  length: AxisLength;
  rank?: number;
}

/**
 * Numbers of queries and of keys. `'end'`: the last query stands at the last key, as over a cache of keys; else the first at the
 * first.
 */
export type MaskSize = [queries: AxisLength, keys: AxisLength, from?: 'end'];

/** A sum of lengths that are not known, and under the empty name of a number. */
export type LengthSum = ReadonlyMap<string, number>;

const ofNumbers = '';

/** `a + factor · b`, without the terms that are 0. */
export function sumOf(a: LengthSum, factor: number, b: LengthSum): LengthSum {
  const sum = new Map(a);
  for (const [name, count] of b) sum.set(name, (sum.get(name) ?? 0) + factor * count);
  return new Map([...sum].filter(([, count]) => count !== 0));
}

export function lengthSum(length: AxisLength): LengthSum {
  return sumOf(new Map(), 1, typeof length === 'string' ? new Map([[length, 1]]) : new Map([[ofNumbers, length]]));
}

export function uniform(value: number, lengths?: AxisLength[]): Triangle {
  return {kind: 'triangle', visible: value, hidden: value, lengths, rank: lengths?.length};
}

/** A tensor of one value. */
type Uniform = Triangle & {size?: undefined};

export function isUniform(form: MaskForm | undefined): form is Uniform {
  return form?.kind === 'triangle' && form.visible === form.hidden;
}

/** Whether sizes are known to be the same. */
export function areSame(a: MaskSize | undefined, b: MaskSize | undefined): boolean {
  return a !== undefined && b !== undefined && a.every((length, i) => length === b[i]) && a.length === b.length;
}

/** Of other lengths in front of the last two axes it is not known that the scores have them. */
export const isOne = (length: AxisLength): boolean => length === 1;
