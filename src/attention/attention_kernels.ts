import type {KernelConfig, TensorInfo} from '@tensorflow/tfjs-core';

/*
 * Names, inputs and attributes of the kernels, in the manner of tfjs-core's `kernel_names`. The ops have checked every
 * input and filled every attribute before a kernel runs.
 */

/**
 * Shapes, float32: query `[batch, heads, queryLength, headDim]`, key `[batch, keyValueHeads, keyLength, headDim]`, value
 * `[batch, keyValueHeads, keyLength, valueDim]`. Inputs with a question mark are left out, key and all, where there are
 * none.
 */
export interface AttentionInputs {
  query: TensorInfo;
  /** Key and value may be packed: int32 `[…, headDim / 2]`, what `PackFloat16` gives. Not in gradients. */
  key: TensorInfo;
  /** A plan alone has none. */
  value?: TensorInfo;
  /** int32 `[batch]`: keys from there on are padding. Not read back by the ops: a kernel clamps them to the key length. */
  keyLengths?: TensorInfo;
  /**
   * bool (true: may be seen) or float32 (added to the scaled score; −Infinity hides the key),
   * of rank 4, each dimension 1 or that of `[batch, heads, queryLength, keyLength]`.
   */
  mask?: TensorInfo;
  /** float32 `[heads]`: what is subtracted from a scaled score for each position between row and key. */
  alibiSlopes?: TensorInfo;
  /** float32 `[heads]`: a score that takes part in the softmax of each row and has no value. */
  sinks?: TensorInfo;
  /**
   * The plan that block-sparse attention goes by, both or neither; without one the kernel makes its own. Shapes are
   * those of the outputs of `PBSAttentionPlan`.
   */
  keyIndices?: TensorInfo;
  blockMask?: TensorInfo;
  /** Where gradients are asked for: what the forward kernel gave, and the gradient of a loss by that. */
  output?: TensorInfo;
  dy?: TensorInfo;
  /** float32 `[batch, heads, queryLength]`, the gradient of the loss by `logSumExp`; with exact attention alone. */
  dLogSumExp?: TensorInfo;
}

/** Exact attention. One output: float32 `[batch, heads, queryLength, valueDim]`. */
export const FlashAttention = 'FlashAttention';
export interface FlashAttentionAttrs {
  causal: boolean;
  scale: number;
  precision: 'float32' | 'float16';
  /** Position of the first query row among the keys; 0 where neither a causal mask nor a window nor slopes ask for it. */
  queryOffset: number;
  /** Keys that a row sees up to its own position, and without a causal mask after it. None: all. */
  window?: number;
  /** Scaled scores become `softCap · tanh(score / softCap)`. */
  softCap?: number;
  /** Names of the inputs after query, key and value, in their order: tfjs saves them for the gradient without names. */
  optionalInputs?: string[];
}

/**
 * Exact attention with the logarithm of each row's sum of exp(score), by which results over parts of the keys can be merged. Two outputs:
 * float32 `[batch, heads, queryLength, valueDim]`, and float32 `[batch, heads, queryLength]`, −Infinity in a row that sees nothing and has
 * no sink. Attributes are those of `FlashAttention`, whose gradient kernel serves.
 */
export const AttentionWithLogSumExp = 'AttentionWithLogSumExp';

/**
 * Rows of keys or values as two float16 a word, the first in the low half. One input, x: float32 `[…, dim]`; one output: int32
 * `[…, dim / 2]`. On backends that have no such kernel attention takes no packed rows.
 */
export const PackFloat16 = 'PackFloat16';

/** Values of a row of keys or values, packed or not: kernels are given no other int32 for them. */
export const rowDim = ({shape, dtype}: TensorInfo): number => shape[shape.length - 1] * (dtype === 'int32' ? 2 : 1);

/** Permuted block-sparse attention. One output: float32 `[batch, heads, queryLength, valueDim]`. */
export const PBSAttention = 'PBSAttention';
export interface PBSAttentionAttrs extends FlashAttentionAttrs {
  blockSize: number;
  keyBlockSize: number;
  segmentSize: number;
  threshold: number;
  permute: boolean;
  /** How blocks are estimated, and by that ordered and selected: from a sample of the scores, or as in the paper. */
  estimate: 'sampled' | 'pooled';
  /** Whether the kernel may run exact attention where it expects that to be no slower. */
  auto: boolean;
  /** Share of the visible blocks that it then expects to keep; 0 where nothing was measured. */
  expectedDensity: number;
}

/**
 * The key order and the blocks that `PBSAttention` uses with the same attributes and `auto` false. Two outputs: int32 key
 * indices `[batch, heads, keyLength]` and bool block mask `[batch, heads, queryBlocks, keyBlocks]`. With `withMass` a third:
 * float32 `[batch, heads, queryBlocks]`, the share of the expected attention that was kept (`kept_mass.ts`).
 */
export const PBSAttentionPlan = 'PBSAttentionPlan';
export interface PBSAttentionPlanAttrs extends PBSAttentionAttrs {
  withMass: boolean;
}

/**
 * Gradients of exact and of block-sparse attention: float32, shaped as query, key and value. Their inputs are those
 * of the forward kernel, what it gave, and the gradient of a loss by that. Weights are computed again, always
 * in float32; block-sparse attention takes the form, the key order and the blocks that the forward kernel took, as
 * constants.
 */
export const FlashAttentionGrad = 'FlashAttentionGrad';
export const PBSAttentionGrad = 'PBSAttentionGrad';

/** A kernel as this package registers it: the version says which attributes it knows. */
export interface RegisteredKernel extends KernelConfig {
  packageVersion?: string;
  /** Whether it is made of tfjs's ops, for want of kernels of the backend's own. */
  isComposed?: true;
}
