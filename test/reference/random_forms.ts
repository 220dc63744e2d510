import type {FlashAttentionOptions, PBSAttentionOptions} from '../../src/index';
import type {MaskValues, RectangularShape} from './attention';
import {maskTensor} from './attention';
import type {OracleOptions} from './attention_oracle';

/** A call of attention in some form, made by chance. */
export interface FormCase {
  shape: Required<RectangularShape>;
  options: OracleOptions & {queryOffset: number};
  /** How block-sparse attention cuts it. */
  blocks: Required<Pick<PBSAttentionOptions, 'blockSize' | 'keyBlockSize' | 'segmentSize' | 'threshold' | 'estimate'>>;
  seed: number;
}

/** What changes the text of shaders. */
interface Variant {
  causal: boolean;
  /** A few rows over many keys, as in decoding. */
  decodes: boolean;
  /** Whether keys stand before the first row. */
  offset: boolean;
  valueDim: number;
  /** Whether the rows are more than one of the larger tiles; only of few variants, elsewhere they are now and then. */
  isLong?: boolean;
  keyLengths?: boolean;
  mask?: MaskValues['dtype'];
  window?: boolean;
  softCap?: boolean;
  alibiSlopes?: boolean;
  sinks?: boolean;
}

/** As few as have every pair of forms: compiling is most of what a test takes where the GPU is software. */
const fewVariants: Variant[] = [
  {
    causal: true,
    decodes: false,
    offset: true,
    valueDim: 8,
    isLong: true,
    window: true,
    softCap: true,
    alibiSlopes: true,
    sinks: true,
  },
  {
    causal: false,
    decodes: false,
    offset: true,
    valueDim: 8,
    window: true,
    alibiSlopes: true,
    mask: 'bool',
    sinks: true,
  },
  {causal: true, decodes: true, offset: true, valueDim: 8, window: true, softCap: true, alibiSlopes: true, sinks: true},
  {
    causal: true,
    decodes: false,
    offset: true,
    valueDim: 12,
    keyLengths: true,
    window: true,
    sinks: true,
    mask: 'float32',
  },
  {causal: false, decodes: false, offset: false, valueDim: 8, keyLengths: true, softCap: true, alibiSlopes: true},
  {causal: true, decodes: false, offset: false, valueDim: 8, softCap: true, mask: 'float32', window: true},
  {causal: false, decodes: false, offset: true, valueDim: 8, keyLengths: true, window: true},
];

/**
 * The case of a seed: shapes that straddle the boundaries of tiles, blocks and segments, chunks with keys before and after, now and then
 * a few rows over many keys; and any combination of forms, or one of a few. One head dim, since each is another set of shaders.
 */
export function randomForm(seed: number, {few}: {few: boolean}): FormCase {
  let state = seed;
  // mulberry32
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const integer = (least: number, most: number) => least + Math.floor(uniform() * (most - least + 1));
  const chance = (share: number) => uniform() < share;
  const oneOf = <T>(...values: T[]) => values[integer(0, values.length - 1)];
  uniform();

  const variant: Variant = few
    ? fewVariants[seed % fewVariants.length]
    : {
        causal: chance(0.7),
        decodes: chance(0.15),
        offset: chance(0.5),
        valueDim: oneOf(8, 12),
        keyLengths: chance(0.25),
        mask: chance(0.25) ? oneOf('bool' as const, 'float32' as const) : undefined,
        window: chance(0.5),
        softCap: chance(0.4),
        alibiSlopes: chance(0.4),
        sinks: chance(0.4),
      };
  const {causal, decodes, offset, valueDim, isLong} = variant;
  // Of few variants one has the larger tiles, and each of the others two: each tile is another shader.
  const fewRows = () => (isLong ? integer(33, 60) : oneOf(integer(1, 8), integer(17, 31)));
  const length = decodes ? integer(1, 4) : few ? fewRows() : integer(1, 60);
  const before = decodes ? integer(520, 700) : offset ? integer(1, 60) : 0;
  const after = oneOf(0, integer(1, 20));
  const keyValueHeads = integer(1, 2);
  const shape = {
    batch: integer(1, 2),
    heads: keyValueHeads * integer(1, 2),
    keyValueHeads,
    length,
    keyLength: before + length + after,
    headDim: 8,
    valueDim,
  };
  const {batch, heads, keyLength} = shape;
  const given = <T>(isGiven: unknown, value: T) => (isGiven ? value : undefined);
  const list = (count: number, value: () => number) => Array.from({length: count}, value);
  const keyBlockSize = oneOf(4, 8);
  return {
    shape,
    options: {
      causal,
      queryOffset: before,
      scale: oneOf(0.2, 0.5),
      keyLengths: given(
        variant.keyLengths,
        list(batch, () => integer(0, keyLength)),
      ),
      mask: variant.mask && randomMask([batch, heads, length, keyLength], variant.mask, integer, uniform),
      window: given(variant.window, oneOf(integer(1, 12), integer(1, keyLength + 5))),
      softCap: given(variant.softCap, oneOf(0.7, 3, 50)),
      alibiSlopes: given(
        variant.alibiSlopes,
        list(heads, () => Math.fround(2 ** -integer(0, 8))),
      ),
      sinks: given(
        variant.sinks,
        list(heads, () => Math.fround(6 * uniform() - 3)),
      ),
    },
    blocks: {
      blockSize: oneOf(4, 12),
      keyBlockSize,
      segmentSize: keyBlockSize * integer(1, 3),
      threshold: oneOf(0.5, 0.8, 0.95),
      estimate: oneOf('sampled', 'sampled', 'pooled'),
    },
    seed,
  };
}

/** Some dimensions broadcast; a fourth of the keys is hidden. */
function randomMask(
  full: number[],
  dtype: MaskValues['dtype'],
  integer: (least: number, most: number) => number,
  uniform: () => number,
): MaskValues {
  const shape = full.map((size) => (integer(0, 1) ? size : 1)) as MaskValues['shape'];
  const values = Array.from({length: shape.reduce((a, b) => a * b, 1)}, () => {
    const hides = uniform() < 0.25;
    return dtype === 'bool' ? (hides ? 0 : 1) : hides ? -Infinity : Math.fround(2 * uniform() - 1);
  });
  return {values, shape, dtype};
}

/** Options of `flashAttention`, of the same meaning. */
export const flashOptions = ({mask, ...options}: OracleOptions): FlashAttentionOptions => ({
  ...options,
  mask: mask && maskTensor(mask),
});
