import type {FlashAttentionOptions, PBSAttentionOptions} from '../../src/index';
import type {MaskValues, RectangularShape} from './attention';
import {maskTensor} from './attention';
import type {OracleOptions} from './attention_oracle';

/** A call of attention in some form, made by chance. */
export interface FormCase {
  shape: Required<RectangularShape>;
  options: OracleOptions;
  /** How block-sparse attention cuts it. */
  blocks: Required<Pick<PBSAttentionOptions, 'blockSize' | 'keyBlockSize' | 'segmentSize' | 'threshold' | 'estimate'>>;
  seed: number;
}

/**
 * The case of a seed: shapes that straddle the boundaries of tiles, blocks and segments, chunks with keys before and after,
 * now and then a few rows over many keys, as in decoding; and any combination of forms. Few head dims, since each is
 * another set of shaders.
 */
export function randomForm(seed: number): FormCase {
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

  const decodes = chance(0.15);
  const length = decodes ? integer(1, 4) : integer(1, 60);
  const before = decodes ? integer(520, 700) : oneOf(0, integer(0, 60));
  const after = oneOf(0, integer(1, 20));
  const keyValueHeads = integer(1, 2);
  const shape = {
    batch: integer(1, 2),
    heads: keyValueHeads * integer(1, 2),
    keyValueHeads,
    length,
    keyLength: before + length + after,
    headDim: 8,
    valueDim: oneOf(8, 12),
  };
  const {batch, heads, keyLength} = shape;
  const given = <T>(share: number, value: T) => (chance(share) ? value : undefined);
  const list = (count: number, value: () => number) => Array.from({length: count}, value);
  const keyBlockSize = oneOf(4, 8);
  return {
    shape,
    options: {
      causal: chance(0.7),
      queryOffset: before,
      scale: oneOf(0.2, 0.5),
      keyLengths: given(
        0.25,
        list(batch, () => integer(0, keyLength)),
      ),
      mask: given(0.25, randomMask([batch, heads, length, keyLength], integer, uniform)),
      window: given(0.5, oneOf(integer(1, 12), integer(1, keyLength + 5))),
      softCap: given(0.4, oneOf(0.7, 3, 50)),
      alibiSlopes: given(
        0.4,
        list(heads, () => Math.fround(2 ** -integer(0, 8))),
      ),
      sinks: given(
        0.4,
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
  integer: (least: number, most: number) => number,
  uniform: () => number,
): MaskValues {
  const shape = full.map((size) => (integer(0, 1) ? size : 1)) as MaskValues['shape'];
  const dtype = integer(0, 1) ? 'bool' : 'float32';
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
