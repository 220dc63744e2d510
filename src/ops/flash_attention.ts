import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {op} from '@tensorflow/tfjs-core';
import {FlashAttention} from '../attention/attention_kernels.js';
import {runDifferentiable} from '../attention/gradients.js';
import {headInputs, keyLengthsInput, maskInput} from './attention_inputs.js';
import {asGiven, attentionTensors} from './attention_tensors.js';
import {attendByEntry, commonOptions, hasEntries, zeroRows} from './batch_entries.js';
import {checkBackend, flashAttentionAttrs} from './check_arguments.js';
import type {AttentionOp, FlashAttentionOptions} from './options.js';

/**
 * Exact attention, `softmax(scale · query · keyᵀ) · value`, in tiles with an online softmax (FlashAttention,
 * arXiv 2205.14135): the score matrix never exists, and memory beyond the output does not grow with the length.
 *
 * ```js
 * const output = flashAttention(query, key, value, {causal: true});
 * const same = query.flashAttention(key, value, {causal: true});
 * ```
 *
 * Queries may be fewer than the keys: under a causal mask they are then the last ones, as in chunked prefill and decoding over
 * a key/value cache, unless `queryOffset` says otherwise.
 *
 * Differentiable by query, key, value and a float32 `mask`, not by `alibiSlopes` and `sinks`. The gradient by a mask is made of tfjs's own ops, in tiles. The gradient is computed in float32 in any precision, in tiles again:
 * the forward pass keeps its inputs and its output alone, and the three gradients take about 4 times its multiply-adds and
 * memory that grows with the length as the inputs do. There is no gradient of the gradient; tfjs throws then.
 *
 * Without a batch, `[heads, length, headDim]`, query, key and value are a batch of one, and so is what comes back.
 *
 * @param query float32 `[batch, heads, queryLength, headDim]`.
 * @param key float32 `[batch, keyValueHeads, keyLength, headDim]`; `heads` is a multiple of `keyValueHeads`, and query head
 *     `h` reads key head `h / (heads / keyValueHeads)` (grouped-query attention, no repeated keys needed).
 * @param value float32 `[batch, keyValueHeads, keyLength, valueDim]`. Key and value may both be what {@link packFloat16} gives of
 *     such.
 * @param options see {@link FlashAttentionOptions}: `causal = true`, `scale = 1 / sqrt(headDim)`,
 *     `queryOffset = keyLength - queryLength`; `keyLengths`, `window`, `softCap`, `alibiSlopes`, `sinks`, `mask`.
 * @returns float32 `[batch, heads, queryLength, valueDim]`; zeros in a row that sees no key.
 * @throws Error if a tensor or an option is not of that form, or if the device cannot hold the tensors;
 *     nothing has been launched then.
 * @function
 */
export const flashAttention = op({flashAttention_}) as AttentionOp<FlashAttentionOptions>;

function flashAttention_(...[q, k, v, options]: Parameters<typeof flashAttention>): Tensor {
  const tensors = attentionTensors('flashAttention', q, k, v);
  const {query, key, value, isOneEntry} = tensors;
  const attrs = flashAttentionAttrs('flashAttention', commonOptions(options), query, key);
  checkBackend('flashAttention', FlashAttention);
  const mask = maskInput('flashAttention', options, tensors);
  if (hasEntries(options)) {
    const attend = (...x: [Tensor4D, Tensor4D, Tensor4D, FlashAttentionOptions]) => [flashAttention(...x)];
    const given = {...options, ...mask};
    return asGiven(attendByEntry('flashAttention', tensors, given, attend, [zeroRows(tensors)])[0], tensors);
  }
  const inputs = {
    query,
    key,
    value,
    ...keyLengthsInput('flashAttention', options, key),
    ...headInputs('flashAttention', options, query),
    ...mask,
  };
  return asGiven(runDifferentiable(FlashAttention, inputs, attrs), {isOneEntry});
}
