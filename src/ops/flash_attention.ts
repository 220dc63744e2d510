import type {NamedAttrMap, NamedTensorMap, Tensor4D} from '@tensorflow/tfjs-core';
import {engine, op} from '@tensorflow/tfjs-core';
import {FlashAttention} from '../kernels/attention_kernels.js';
import {checkBackend, checkTensors, flashAttentionAttrs} from './check_arguments.js';
import type {FlashAttentionOptions} from './options.js';

/**
 * Exact attention, `softmax(scale · query · keyᵀ) · value`, in tiles with an online softmax (FlashAttention,
 * arXiv 2205.14135): the score matrix never exists, and memory beyond the output does not grow with the length.
 *
 * ```js
 * const output = flashAttention(query, key, value, {causal: true});
 * const same = query.flashAttention(key, value, {causal: true});
 * ```
 *
 * @param query float32 `[batch, heads, length, headDim]`.
 * @param key float32 `[batch, keyValueHeads, length, headDim]`; `heads` is a multiple of `keyValueHeads`, and query head
 *     `h` reads key head `h / (heads / keyValueHeads)` (grouped-query attention, no repeated keys needed).
 * @param value float32, shaped as `key`.
 * @param options see {@link FlashAttentionOptions}: `causal = true`, `scale = 1 / sqrt(headDim)`.
 * @returns float32 `[batch, heads, length, headDim]`.
 * @throws Error if a tensor or an option is not of that form, if the active backend has no kernel, or if the device
 *     cannot hold the tensors; nothing has been launched then.
 * @function
 */
export const flashAttention = op({flashAttention_});

function flashAttention_(query: Tensor4D, key: Tensor4D, value: Tensor4D, options?: FlashAttentionOptions): Tensor4D {
  checkTensors('flashAttention', query, key, value);
  const attrs = flashAttentionAttrs('flashAttention', options, query.shape[3]);
  checkBackend('flashAttention', FlashAttention);
  const inputs = {query, key, value} as unknown as NamedTensorMap;
  return engine().runKernel(FlashAttention, inputs, attrs as NamedAttrMap);
}
