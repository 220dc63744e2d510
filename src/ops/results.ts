import type {Tensor, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import type {ExactReason} from '../attention/cost_model.js';
import type {DeviceClass} from '../attention/device_costs.js';

/* What the ops give besides tensors. */

/** Attention of query rows to a part of the keys. */
// Types and not interfaces, so that `tf.tidy` and `tf.dispose` take them.
export type AttentionPart = {
  /** float32 `[batch, heads, queryLength, valueDim]`, or without the batch. */
  output: Tensor;
  /** float32 `[batch, heads, queryLength]`, or without the batch: the natural logarithm of each row's sum of exp(score). */
  logSumExp: Tensor;
};

/** How queries and keys were cut for a plan. */
export type PBSAttentionPlanSizes = {
  /** Rows a block of queries. */
  blockSize: number;
  /** Keys a block of keys. */
  keyBlockSize: number;
  /** Keys a segment. */
  segmentSize: number;
  /** Whether a query sees only keys at its own position and before. */
  causal: boolean;
  /** Keys that a row sees up to its own position, where there is a window. */
  window?: number;
  /** Position of the first query row among the keys. */
  queryOffset: number;
  /** Rows of the query. */
  queryLength: number;
  /** Keys of each batch entry that are not padding, where they were given as numbers. */
  keyLengths?: number[];
};

/** What `pbsAttention` does with the same query, key and options and `auto` false. */
export type PBSAttentionPlan = {
  /** int32 `[batch, heads, keyLength]`: permuted position → original key. In a plan put together by hand, what is out of range counts as its nearest end,
   * and gradients by key and value are right only where each key stands once, in its segment. */
  keyIndices: Tensor3D;
  /** bool `[batch, heads, queryBlocks, keyBlocks]`: the blocks of permuted keys that each block of queries attends to. */
  blockMask: Tensor4D;
  /**
   * How queries and keys were cut: calls by the plan take `blockSize`, `keyBlockSize`, `segmentSize`, `causal`, `window`, `keyLengths` and, under a causal
   * mask or with a window, `queryOffset` from here, and refuse others, or a query of another length.
   * Where it is missing, as in a plan put together by hand, they must be given as they were.
   */
  sizes?: PBSAttentionPlanSizes;
};

/**
 * What a call of {@link pbsAttention} did, handed to its option `onReport`. It holds the plan and references to query and
 * key, also past the end of a `tidy`: `dispose` frees them. The figures are computed and read back when they are asked for.
 */
export interface PBSAttentionReport {
  /**
   * Why the call ran exact attention: `'threshold'`, it is 1; `'length'`, there is no more than one segment; `'auto'`,
   * blocks were not expected to pay. `undefined` where blocks were left out.
   */
  exactReason?: ExactReason;
  /**
   * What `auto` knows of the device: `'calibration'`, measured constants ({@link useAttentionCalibration}); else the class that its name
   * tells, with the constants of that class.
   */
  costBasis: 'calibration' | DeviceClass;
  /** The key order and the blocks that the call used; where it was exact, every visible block. Owned by the report. */
  plan: PBSAttentionPlan;
  /** Share of the visible blocks that were kept, as {@link pbsAttentionDensity}: above 0, at most 1. */
  density(): Promise<number>;
  /**
   * Estimated share of attention that was kept, 0 to 1: what selection itself expected, mean over query blocks and heads. By the
   * sampled estimate of all attention; by the pooled one of what goes to the blocks that selection chooses among (not those that
   * are always kept). Rejects where the call was given a plan.
   */
  keptMass(): Promise<number>;
  /**
   * True share of attention that was kept, 0 to 1, mean over query rows and heads. For checks and small sizes: it runs
   * exact attention `ceil(length / keyBlockSize / headDim)` times. Rejects with an error above 16,384 tokens.
   */
  exactKeptMass(): Promise<number>;
  /** Frees what the report holds. Figures that were asked for before still come; asked for later, they reject. */
  dispose(): void;
}
