import type {Tensor, Tensor1D, Tensor3D, Tensor4D, TensorLike} from '@tensorflow/tfjs-core';
import type {PBSAttentionPlan, PBSAttentionReport} from './results.js';

/** Options that exact and block-sparse attention have in common. */
export interface AttentionOptions {
  /** Whether a query sees only keys at its own position and before. Default `true`. */
  causal?: boolean;
  /** Factor on the products of queries and keys before the softmax. Default `1 / sqrt(headDim)`. */
  scale?: number;
  /**
   * `'float16'` allows products of float16 and a float32 softmax where the device can (see `registerWebGPUBackend`): on
   * matrix units, with float32 sums, inputs within float16's range, 65,504; without, in the shader's float16, where sums
   * of up to 16 products must lie within it too; elsewhere it runs in float32. Blocks are chosen the same way with
   * either. Default `'float32'`.
   */
  precision?: 'float32' | 'float16';
  /**
   * Position of the first query row among the keys: under a causal mask, row i sees the keys up to position
   * `queryOffset + i`. An integer from 0 to `keyLength − queryLength`, the default, with which the last row sees every key:
   * a chunk of a prompt, or the next token, over a key/value cache. Without a causal mask it counts for `window` and `alibiSlopes` alone,
   * goes up to `keyLength`, and is 0 by default where there are fewer keys than rows. A list has one for each batch entry, and each entry is then a
   * call of its own (not in plans).
   */
  queryOffset?: number | number[] | Int32Array;
  /**
   * Position of the first key of each batch entry that is not padding, for batches padded on the left: keys before it are seen by no query, and
   * what they hold matters to nothing. Integers from 0 to `keyLength`. Each entry is a call of its own, over its keys from there on; it gives
   * what it gives without padding. Rows that stand before the first key (under a causal mask, with `window` or `alibiSlopes`, or where there are as many rows
   * as keys) are padding, too, and come back as zeros. Positions count with the padding. Not with `mask`, and not in plans. Default: 0.
   */
  keyStarts?: number[] | Int32Array;
  /**
   * Keys of each batch entry that are not padding, for batches padded on the right: keys at this position and after are seen
   * by no query. Integers from 0 to `keyLength`, or an int32 tensor `[batch]`, which is not read back: what lies outside that
   * range counts as its nearest end. Default: every key; by a plan, those that it was made with.
   */
  keyLengths?: number[] | Int32Array | Tensor1D;
  /**
   * Sliding window: row i sees key j only if `i - j < window`, so that many keys and its own among them; without a causal mask only
   * if `|i - j| < window`. Positions count from `queryOffset`, with and without a causal mask. An integer from 1 on. Tiles of keys outside are not read.
   * Default: none (Mistral, Gemma 2).
   */
  window?: number;
  /** Scores become `softCap · tanh(score / softCap)`, after the scale and before anything that is added. Above 0, from 1e-30 to 1e30. Default: none (Gemma 2). */
  softCap?: number;
  /**
   * ALiBi: adds `-slope · (i - j)` to the score of row i and key j, after `softCap`; without a causal mask `-slope · |i - j|`. A slope a query head:
   * numbers, or a float32 tensor `[heads]`. No gradient by them. Default: none (arXiv 2108.12409, BLOOM).
   */
  alibiSlopes?: number[] | Float32Array | Tensor1D;
  /**
   * A score a query head that takes part in the softmax and has no value, after `scale`, `softCap` and masks: it lowers all weights of a row. Numbers, or a float32 tensor
   * `[heads]`. No gradient by them. A row that sees no key is zeros. Default: none (gpt-oss).
   */
  sinks?: number[] | Float32Array | Tensor1D;
}

/** Options of exact attention. Those of `pbsAttention` alone are taken and change nothing, so that one call stands for the other. */
export interface FlashAttentionOptions extends AttentionOptions {
  /**
   * Bool, or int32 of 0 and 1, where a query may see a key; or float32, added to the scaled product (a key with `-Infinity` is not seen). Of
   * the query's rank, each dimension 1 or that of `[batch, heads, queryLength, keyLength]`. A key is seen if the mask, `causal` and
   * `keyLengths` all allow it. Keys count by their own index, also where block-sparse attention sorts them; the sampled estimate sorts and chooses by
   * scores under the mask, the pooled one as if there were none. Default: none.
   */
  mask?: Tensor3D | Tensor4D;
}

/** Options of permuted block-sparse attention that do not depend on the tensors (arXiv 2510.21270, section 3). */
export interface PBSAttentionSettings extends Pick<
  AttentionOptions,
  'causal' | 'scale' | 'precision' | 'window' | 'softCap'
> {
  /** Rows a block of queries, which share a choice of keys; B in the paper. Default 128. */
  blockSize?: number;
  /** Keys a block, the unit that is kept or skipped; in the paper `blockSize`. Default 64, or `blockSize` where that is smaller. */
  keyBlockSize?: number;
  /** Keys a segment, S in the paper: the range in which keys are sorted. A multiple of `keyBlockSize`. Default 256. */
  segmentSize?: number;
  /**
   * How much is kept, from 0, least, to 1, exact attention. By the sampled estimate a block of keys is skipped where the rows of
   * a block of queries pay it less than `0.6 · (1 − threshold)² · √(8192 / keys that they see)`, as the mean of the rows plus a
   * tenth of the most that one pays. By the pooled one it is τ of the paper: the share of the estimated attention that the kept
   * blocks must reach. What either comes to on real models: docs/choosing-options.md. Default 0.9.
   */
  threshold?: number;
  /**
   * How blocks are chosen. `'sampled'`: every row meets every fourth key, all rows together every key, and keys are sorted by
   * what the first 32 rows behind their segment pay to them; with blocks of 32 queries or more a row thus depends on no row after
   * its own block.
   * `'pooled'`: the paper's rule, by products of mean queries and mean keys, keys sorted by what the last block of rows pays
   * (sections 3.2 and 3.3); it costs less and loses many times more ({@link paperOptions}). Default `'sampled'`.
   */
  estimate?: 'sampled' | 'pooled';
  /** Whether keys are sorted inside segments. Default `true`. */
  permute?: boolean;
  /**
   * Whether keys keep their order, so that no choice depends on what comes after a row's own block of queries, in any call: a
   * prompt in chunks that end with a block gives what one pass gives. The same as
   * `permute: false`; costs a quarter more blocks at equal loss (SmolLM2-135M, 8,192 tokens). Without it the sampled estimate still looks at no later block, but a chunk orders the keys
   * before it by its own rows. Either way the rows of a block choose together. Default `false`.
   */
  causalSafe?: boolean;
  /**
   * Whether `pbsAttention` runs exact attention instead where it does not expect blocks to pay: short lengths, few heads,
   * a high threshold. Decided by shape, options and device before anything is launched (`attention/cost_model.ts`); the
   * output is then that of `flashAttention`. A plan is that of block-sparse attention in any case. What the device can do, it knows by its
   * class, or by `useAttentionCalibration`. Default `true`.
   */
  auto?: boolean;
  /**
   * Share of the visible blocks that calls of this length keep, as the density of a report or a tuned rule said: `auto` goes by it. From 0
   * to 1; 0, the default: not known, and `auto` takes what one language model kept at the length (`attention/cost_model.ts`).
   */
  expectedDensity?: number;
}

/** Options of permuted block-sparse attention. */
export interface PBSAttentionOptions extends PBSAttentionSettings, FlashAttentionOptions {
  /**
   * Attend by this plan, of {@link pbsAttentionPlan} or {@link extendPBSAttentionPlan}, instead of making one: each block of
   * queries reads the blocks that the plan keeps for it. `blockSize`, `keyBlockSize`, `segmentSize`, `causal`, `window`, `queryOffset` and `keyLengths` are then the
   * plan's (its `sizes`), the query has as many rows, and `threshold`, `estimate`, `permute`, `causalSafe` and `auto` change
   * nothing. For `pbsAttention` alone. Default: none.
   */
  plan?: PBSAttentionPlan;
  /**
   * Told what the call did, before `pbsAttention` returns: density, kept attention, the plan, and why exact attention ran.
   * The receiver disposes the report; other tensors that it makes before it returns are freed with the call's own, unless it
   * `keep`s them. A call without it does nothing for it. For `pbsAttention` alone. Default: none.
   */
  onReport?: (report: PBSAttentionReport) => void;
}

/**
 * An op of query, key and value, all of rank 4, or all of rank 3: a batch of one, which comes back as rank 3. Ops of tfjs return tensors of
 * no known rank, so that the types take any, and the op checks it.
 */
export interface AttentionOp<Options> {
  (query: Tensor3D | number[][][], key: TensorInput, value: TensorInput, options?: Options): Tensor3D;
  (query: TensorInput, key: TensorInput, value: TensorInput, options?: Options): Tensor4D;
}

/** A tensor, or nested arrays, as tfjs's own ops take them. */
export type TensorInput = Tensor | TensorLike;

/** Defaults that do not depend on the inputs. */
export const defaultOptions = {
  causal: true,
  precision: 'float32' as 'float32' | 'float16',
  blockSize: 128,
  keyBlockSize: 64,
  segmentSize: 256,
  threshold: 0.9,
  estimate: 'sampled' as 'sampled' | 'pooled',
  permute: true,
  causalSafe: false,
  auto: true,
  expectedDensity: 0,
};

/**
 * The rule of the paper (arXiv 2510.21270, sections 3.2 and 3.3), to be spread into options:
 * `pbsAttention(query, key, value, {...paperOptions, threshold: 0.8})`.
 */
export const paperOptions: Readonly<
  Required<Pick<PBSAttentionSettings, 'estimate' | 'blockSize' | 'keyBlockSize' | 'segmentSize' | 'threshold'>>
> = {
  estimate: 'pooled',
  blockSize: 128,
  keyBlockSize: 128,
  segmentSize: 256,
  threshold: 0.9,
};

/** The options without those that are `undefined`, which count as not given. */
export function givenOptions<Options extends object>(options: Options | undefined): Partial<Options> {
  return Object.fromEntries(
    Object.entries(options ?? {}).filter(([, value]) => value !== undefined),
  ) as Partial<Options>;
}
