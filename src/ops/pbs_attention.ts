import type {NamedAttrMap, NamedTensorMap, Tensor4D} from '@tensorflow/tfjs-core';
import {engine, op} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../kernels/attention_kernels.js';
import {backendCosts} from '../kernels/backend_costs.js';
import {blockGeometry} from '../kernels/block_geometry.js';
import {whyExact} from '../kernels/cost_model.js';
import {check, checkBackend, checkTensors, pbsAttentionAttrs} from './check_arguments.js';
import type {PBSAttentionOptions} from './options.js';
import {reportOf} from './pbs_attention_report.js';

/**
 * Permuted block-sparse attention for the prefill of long prompts (PBS-Attn, arXiv 2510.21270, section 3 and
 * algorithm 1): sorts the keys inside segments so that the important ones cluster, estimates which blocks of keys
 * matter to each block of queries, and attends to those alone.
 *
 * Exact where `length <= segmentSize` or `threshold` is 1; and, with `auto`, where blocks are not expected to pay. Then
 * the output is that of `flashAttention`.
 *
 * ```js
 * const output = pbsAttention(query, key, value, {threshold: 0.9});
 * const same = query.pbsAttention(key, value, {threshold: 0.9});
 * ```
 *
 * @param query float32 `[batch, heads, length, headDim]`.
 * @param key float32 `[batch, keyValueHeads, length, headDim]`; `heads` is a multiple of `keyValueHeads`, and query head
 *     `h` reads key head `h / (heads / keyValueHeads)` (grouped-query attention, no repeated keys needed).
 * @param value float32, shaped as `key`.
 * @param options see {@link PBSAttentionOptions}: `blockSize = 128`, `segmentSize = 256`, `threshold = 0.9`,
 *     `causal = true`, `scale = 1 / sqrt(headDim)`, `permute = true`, `exactLastBlock = true`, `auto = true`.
 * @returns float32 `[batch, heads, length, headDim]`, rows in the order of the query.
 * @throws Error if a tensor or an option is not of that form, if the active backend has no kernel, or if the device
 *     cannot hold the tensors; nothing has been launched then.
 * @function
 */
export const pbsAttention = op({pbsAttention_});

function pbsAttention_(query: Tensor4D, key: Tensor4D, value: Tensor4D, options?: PBSAttentionOptions): Tensor4D {
  checkTensors('pbsAttention', query, key, value);
  const {onReport, ...others} = options ?? {};
  const attrs = pbsAttentionAttrs('pbsAttention', others, query.shape[3]);
  checkBackend('pbsAttention', PBSAttention);
  const inputs = {query, key, value} as unknown as NamedTensorMap;
  if (onReport === undefined) {
    return engine().runKernel(PBSAttention, inputs, attrs as NamedAttrMap);
  }
  check(typeof onReport === 'function', 'pbsAttention', 'onReport', `got ${typeof onReport}`, 'a function');
  const costs = backendCosts(query.shape[3], attrs.precision);
  const report = reportOf(query, key, attrs, whyExact(blockGeometry(query, key, attrs), attrs, costs));
  try {
    const output = engine().runKernel(PBSAttention, inputs, attrs as NamedAttrMap) as Tensor4D;
    onReport(report);
    return output;
  } catch (error) {
    report.dispose();
    throw error;
  }
}
