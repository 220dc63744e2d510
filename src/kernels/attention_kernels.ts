import type {KernelConfig, NamedAttrMap, TensorInfo} from '@tensorflow/tfjs-core';

/**
 * Names, inputs and attributes of the kernels, in the manner of tfjs-core's `kernel_names`. The ops have checked every
 * input and filled every attribute before a kernel runs.
 *
 * Shapes: query `[batch, heads, length, headDim]`, key and value `[batch, keyValueHeads, length, headDim]`, float32.
 */

/** Exact attention. One output: float32 `[batch, heads, length, headDim]`. */
export const FlashAttention = 'FlashAttention';
export type FlashAttentionInputs = Record<'query' | 'key' | 'value', TensorInfo>;
export interface FlashAttentionAttrs extends NamedAttrMap {
  causal: boolean;
  scale: number;
  precision: 'float32' | 'float16';
}

/** Permuted block-sparse attention. One output: float32 `[batch, heads, length, headDim]`. */
export const PBSAttention = 'PBSAttention';
export type PBSAttentionInputs = FlashAttentionInputs;
export interface PBSAttentionAttrs extends FlashAttentionAttrs {
  blockSize: number;
  segmentSize: number;
  threshold: number;
  permute: boolean;
  exactLastBlock: boolean;
  /** Whether the kernel may run exact attention where it expects that to be no slower. */
  auto: boolean;
}

/**
 * The key order and the blocks that `PBSAttention` uses with the same attributes and `auto` false. Two outputs: int32 key
 * indices `[batch, heads, length]` and bool block mask `[batch, heads, queryBlocks, keyBlocks]`. With `withMass` a third:
 * float32 `[batch, heads, queryBlocks]`, the share of the expected attention that was kept (`kept_mass.ts`).
 */
export const PBSAttentionPlan = 'PBSAttentionPlan';
export type PBSAttentionPlanInputs = Record<'query' | 'key', TensorInfo>;
export interface PBSAttentionPlanAttrs extends PBSAttentionAttrs {
  withMass: boolean;
}

/** A kernel as this package registers it: the version says which attributes it knows. */
export interface RegisteredKernel extends KernelConfig {
  packageVersion?: string;
}
