import type {Rank} from '@tensorflow/tfjs-core';
import {Tensor} from '@tensorflow/tfjs-core';
import {flashAttention} from './flash_attention.js';
import type {FlashAttentionOptions, PBSAttentionOptions, TensorInput} from './options.js';
import {pbsAttention} from './pbs_attention.js';

// As tfjs's own chained ops: on tensors of every rank, because most ops return a Tensor of no known rank. The op checks it.
// And in the module that they extend: beside them, an extension of '@tensorflow/tfjs-core' would make a second Tensor.
declare module '@tensorflow/tfjs-core/dist/tensor.js' {
  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- an interface merges only with the same parameters
  interface Tensor<R extends Rank = Rank> {
    /**
     * `flashAttention(this, key, value, options)`: this tensor is the query, float32 `[batch, heads, length, headDim]` or without the batch.
     */
    flashAttention(this: Tensor3D, key: TensorInput, value: TensorInput, options?: FlashAttentionOptions): Tensor3D;
    flashAttention(key: TensorInput, value: TensorInput, options?: FlashAttentionOptions): Tensor4D;
    /**
     * `pbsAttention(this, key, value, options)`: this tensor is the query, float32 `[batch, heads, length, headDim]` or without the batch.
     */
    pbsAttention(this: Tensor3D, key: TensorInput, value: TensorInput, options?: PBSAttentionOptions): Tensor3D;
    pbsAttention(key: TensorInput, value: TensorInput, options?: PBSAttentionOptions): Tensor4D;
  }
}

/**
 * The class of the tensors that ops return. Where two copies of tfjs-core are loaded, it is that of the first, whose engine
 * both share, and not always the one that is imported here.
 */
function tensorClass(): typeof Tensor {
  const {_tfGlobals} = globalThis as {_tfGlobals?: Map<string, unknown>};
  return (_tfGlobals?.get('Tensor') as typeof Tensor | undefined) ?? Tensor;
}

const {prototype} = tensorClass();

prototype.flashAttention = function (this: Tensor, ...args: [TensorInput, TensorInput, FlashAttentionOptions?]) {
  return flashAttention(this, ...args);
} as typeof prototype.flashAttention;

prototype.pbsAttention = function (this: Tensor, ...args: [TensorInput, TensorInput, PBSAttentionOptions?]) {
  return pbsAttention(this, ...args);
} as typeof prototype.pbsAttention;
