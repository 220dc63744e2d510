import type {NamedAttrMap, NamedTensorMap, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {engine, op} from '@tensorflow/tfjs-core';
import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../kernels/attention_kernels.js';
import {checkBackend, checkTensors, pbsAttentionAttrs} from './check_arguments.js';
import type {PBSAttentionOptions} from './options.js';

/** What `pbsAttention` does with the same query, key and options and `auto` false. */
export interface PBSAttentionPlan {
  /** int32 `[batch, heads, length]`: permuted position → original key. */
  keyIndices: Tensor3D;
  /** bool `[batch, heads, blocks, blocks]`: the blocks of permuted keys that each block of queries attends to. */
  blockMask: Tensor4D;
}

/**
 * The key order and the selected blocks of {@link pbsAttention} (paper section 3.2 and 3.3), to look at or to measure;
 * `pbsAttention` makes its own. `auto` changes nothing here: a plan shows what block-sparse attention would choose, also
 * where `pbsAttention` would run exact attention instead.
 *
 * Where attention is exact (`length <= segmentSize` or `threshold` 1), keys are in their own order and every block is
 * selected up to the end of the query block's segment.
 *
 * @param query float32 `[batch, heads, length, headDim]`.
 * @param key float32 `[batch, keyValueHeads, length, headDim]`; `heads` is a multiple of `keyValueHeads`.
 * @param options see {@link PBSAttentionOptions}.
 * @returns `keyIndices`, int32 `[batch, heads, length]`, and `blockMask`, bool `[batch, heads, blocks, blocks]` with
 *     `blocks = ceil(length / blockSize)`. The caller disposes both.
 * @throws Error as {@link pbsAttention} does.
 * @function
 */
export const pbsAttentionPlan =
  // op() is typed for functions of one tensor; it also takes one that returns several under names.
  op({pbsAttentionPlan_}) as typeof pbsAttentionPlan_;

function pbsAttentionPlan_(query: Tensor4D, key: Tensor4D, options?: PBSAttentionOptions): PBSAttentionPlan {
  checkTensors('pbsAttentionPlan', query, key);
  const attrs = pbsAttentionAttrs('pbsAttentionPlan', options, query.shape[3]);
  checkBackend('pbsAttentionPlan', PBSAttentionPlanKernel);
  const inputs = {query, key} as unknown as NamedTensorMap;
  const [keyIndices, blockMask] = engine().runKernel(PBSAttentionPlanKernel, inputs, {
    ...attrs,
    withMass: false,
  } as NamedAttrMap) as unknown as [Tensor3D, Tensor4D];
  return {keyIndices, blockMask};
}
