import type {Tensor1D, Tensor4D} from '@tensorflow/tfjs-core';
import type {PBSAttentionPlan} from './pbs_attention_plan.js';
import type {PBSAttentionReport} from './pbs_attention_report.js';

/** Options that exact and block-sparse attention have in common. */
export interface AttentionOptions {
  /** Whether a query sees only keys at its own position and before. Default `true`. */
  causal?: boolean;
  /** Factor on the products of queries and keys before the softmax. Default `1 / sqrt(headDim)`. */
  scale?: number;
  /**
   * `'float16'` allows products of float16 and a float32 softmax where the device can (see `registerWebGPUBackend`): on
   * matrix units, with float32 sums, inputs within float16's range, 65,504; without, in the shader's float16, where sums
   * of up to 16 products must lie within it too; elsewhere it runs in float32. Blocks are scored and selected in float32
   * in any case. Default `'float32'`.
   */
  precision?: 'float32' | 'float16';
  /**
   * Position of the first query row among the keys: under a causal mask, row i sees the keys up to position
   * `queryOffset + i`. An integer from 0 to `keyLength − queryLength`, the default, with which the last row sees every key:
   * a chunk of a prompt, or the next token, over a key/value cache. Without a causal mask it changes nothing.
   */
  queryOffset?: number;
  /**
   * Keys of each batch entry that are not padding, for batches padded on the right: keys at this position and after are seen
   * by no query. Integers from 0 to `keyLength`, or an int32 tensor `[batch]`, which is not read back: what lies outside that
   * range counts as its nearest end. Default: every key.
   */
  keyLengths?: number[] | Tensor1D;
}

/** Options of exact attention. Those of `pbsAttention` alone are taken and change nothing, so that one call stands for the other. */
export interface FlashAttentionOptions extends AttentionOptions {
  /**
   * Bool, true where a query may see a key; or float32, added to the scaled product (a key with `-Infinity` is not seen). Of
   * rank 4, each dimension 1 or that of `[batch, heads, queryLength, keyLength]`. A key is seen if the mask, `causal` and
   * `keyLengths` all allow it. Default: none.
   */
  mask?: Tensor4D;
}

/** Options of permuted block-sparse attention that do not depend on the tensors (arXiv 2510.21270, section 3). */
export interface PBSAttentionSettings extends Pick<AttentionOptions, 'causal' | 'scale' | 'precision'> {
  /** Rows a block, B in the paper: the unit in which keys are kept or skipped. Default 128. */
  blockSize?: number;
  /** Keys a segment, S in the paper: the range in which keys are sorted. A multiple of `blockSize`. Default 256. */
  segmentSize?: number;
  /**
   * Share of the estimated attention that the kept blocks must reach, from 0 to 1, τ in the paper. A higher threshold
   * keeps more blocks; 1 is exact attention. Default 0.9.
   */
  threshold?: number;
  /** Whether keys are sorted inside segments. Default `true`. */
  permute?: boolean;
  /**
   * Whether blocks for the last query rows are chosen by the exact attention of those rows, which the permutation has
   * computed, instead of the pooled estimate. Not in the paper; causal attention only. Default `true`.
   */
  exactLastBlock?: boolean;
  /**
   * Rows of each block of queries, those farthest from the block's mean, whose exact attention is computed to choose its
   * blocks: a row that asks for one key far away is lost in a mean. An integer from 0 to 64. The other rows are estimated
   * from means and variances of the keys of a block, and `threshold` is a share of all attention, the own segment's
   * included. Not in the paper; 0 is the paper's estimate from mean queries and mean keys, with `threshold` a share of
   * what is paid to other segments. Costs `probeRows / (2 · blockSize)` of exact attention's multiply-adds. Default 8.
   */
  probeRows?: number;
  /**
   * Whether blocks that are skipped still count, each as if all of its keys stood at their mean, with their mean value and
   * a weight corrected by their variance. Not in the paper, where they count for nothing. Costs `3 / (2 · blockSize)` of
   * exact attention's multiply-adds, and reads all keys and values once. Default `true`; with a `plan`, `false`: a cache
   * is then read in the plan's blocks alone.
   */
  remainder?: boolean;
  /**
   * Whether `pbsAttention` runs exact attention instead where it does not expect blocks to pay: short lengths, few heads,
   * a high threshold. Decided by shape, options and device before anything is launched (`kernels/cost_model.ts`); the
   * output is then that of `flashAttention`. A plan is that of block-sparse attention in any case. Default `true`.
   */
  auto?: boolean;
}

/** Options of permuted block-sparse attention. */
export interface PBSAttentionOptions extends PBSAttentionSettings, AttentionOptions {
  /**
   * Attend by this plan, of {@link pbsAttentionPlan} or {@link extendPBSAttentionPlan}, instead of making one: each block of
   * queries reads the blocks that the plan keeps for it. `blockSize`, `segmentSize`, `causal` and `queryOffset` are then the
   * plan's (its `sizes`), the query has as many rows, and `threshold`, `permute`, `exactLastBlock`, `probeRows` and `auto` change nothing. For `pbsAttention` alone.
   * Default: none.
   */
  plan?: PBSAttentionPlan;
  /**
   * Told what the call did, before `pbsAttention` returns: density, kept attention, the plan, and why exact attention ran.
   * The receiver disposes the report; other tensors that it makes before it returns are freed with the call's own, unless it
   * `keep`s them. A call without it does nothing for it. For `pbsAttention` alone. Default: none.
   */
  onReport?: (report: PBSAttentionReport) => void;
}

/** Defaults that do not depend on the inputs. */
export const defaultOptions = {
  causal: true,
  precision: 'float32' as 'float32' | 'float16',
  blockSize: 128,
  segmentSize: 256,
  threshold: 0.9,
  permute: true,
  exactLastBlock: true,
  probeRows: 8,
  remainder: true,
  auto: true,
};

/** The options without those that are `undefined`, which count as not given. */
export function givenOptions<Options extends object>(options: Options | undefined): Partial<Options> {
  return Object.fromEntries(
    Object.entries(options ?? {}).filter(([, value]) => value !== undefined),
  ) as Partial<Options>;
}
