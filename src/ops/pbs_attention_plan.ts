import type {NamedAttrMap, NamedTensorMap, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {engine, op} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from '../attention/attention_kernels.js';
import {PBSAttentionPlan as PBSAttentionPlanKernel} from '../attention/attention_kernels.js';
import type {BlockGeometry} from '../attention/block_geometry.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {headInputs, keyLengthsInput, knowPlan, maskInput, numbersOf} from './attention_inputs.js';
import {attentionTensors} from './attention_tensors.js';
import {checkBackend, pbsAttentionAttrs} from './check_arguments.js';
import type {PBSAttentionOptions, TensorInput} from './options.js';
import type {PBSAttentionPlan, PBSAttentionPlanSizes} from './results.js';

/**
 * The key order and the selected blocks of {@link pbsAttention} (paper section 3.2 and 3.3), to look at or to measure;
 * `pbsAttention` makes its own unless it gets one (`plan`). `auto` changes nothing here: a plan shows what block-sparse attention would choose, also
 * where `pbsAttention` would run exact attention instead.
 *
 * Where attention is exact (no query behind the first segment, or `threshold` 1), keys are in their own order and every block
 * is selected up to the end of the segment of the query block's last row.
 *
 * @param query float32 `[batch, heads, queryLength, headDim]`; without a batch both are a batch of one, which the plan has.
 * @param key float32 `[batch, keyValueHeads, keyLength, headDim]`; `heads` is a multiple of `keyValueHeads`.
 * @param options see {@link PBSAttentionOptions}; all but `plan`.
 * @returns `keyIndices`, int32 `[batch, heads, keyLength]`, and `blockMask`, bool `[batch, heads, queryBlocks, keyBlocks]`
 *     with as many blocks as `queryLength` has blocks of `blockSize` and `keyLength` of `keyBlockSize`, the last maybe partial, both disposed by
 *     the caller; and `sizes`.
 * @throws Error as {@link pbsAttention} does.
 * @function
 */
export const pbsAttentionPlan =
  // op() is typed for functions of one tensor; it also takes one that returns several under names.
  op({pbsAttentionPlan_}) as unknown as (
    query: TensorInput,
    key: TensorInput,
    options?: Omit<PBSAttentionOptions, 'plan' | 'onReport'>,
  ) => PBSAttentionPlan;

function pbsAttentionPlan_(...[q, k, options]: Parameters<typeof pbsAttentionPlan>): PBSAttentionPlan {
  const tensors = attentionTensors('pbsAttentionPlan', q, k);
  const {query, key} = tensors;
  const attrs = pbsAttentionAttrs('pbsAttentionPlan', options, query, key, [
    'queryOffset',
    'keyLengths',
    'alibiSlopes',
    'sinks',
    'mask',
  ]);
  checkBackend('pbsAttentionPlan', PBSAttentionPlanKernel);
  const inputs: NamedTensorMap = {
    query,
    key,
    ...keyLengthsInput('pbsAttentionPlan', options, key),
    ...headInputs('pbsAttentionPlan', options, query),
    ...maskInput('pbsAttentionPlan', options, tensors),
  };
  const [keyIndices, blockMask] = engine().runKernel(PBSAttentionPlanKernel, inputs, {
    ...attrs,
    withMass: false,
  } as NamedAttrMap) as unknown as [Tensor3D, Tensor4D];
  knowPlan(keyIndices);
  const geometry = blockGeometry(query, key, attrs);
  return {keyIndices, blockMask, sizes: planSizes(geometry, attrs, numbersOf(options?.keyLengths))};
}

/** The sizes of a plan that is made for these blocks. */
export function planSizes(
  {blockSize, keyBlockSize, segmentSize, queryOffset, queryLength}: BlockGeometry,
  {causal, window}: Pick<PBSAttentionAttrs, 'causal' | 'window'>,
  keyLengths?: number[],
): PBSAttentionPlanSizes {
  const sizes = {blockSize, keyBlockSize, segmentSize, causal, queryOffset, queryLength};
  return {...sizes, ...(window !== undefined && {window}), ...(keyLengths && {keyLengths})};
}
