import type {NamedTensorMap, Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {op} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../attention/attention_kernels.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {runDifferentiable} from '../attention/gradients.js';
import {headInputs, keyLengthsInput, maskInput, planInputs, withPlanLengths} from './attention_inputs.js';
import {asGiven, attentionTensors} from './attention_tensors.js';
import {attendByEntry, commonOptions, hasEntries, zeroRows} from './batch_entries.js';
import {check, checkBackend, describe, pbsAttentionAttrs} from './check_arguments.js';
import type {AttentionOp, PBSAttentionOptions} from './options.js';
import {reportOf} from './pbs_attention_report.js';

/**
 * Permuted block-sparse attention for the prefill of long prompts (PBS-Attn, arXiv 2510.21270, section 3 and
 * algorithm 1): sorts the keys inside segments so that the important ones cluster, estimates which blocks of keys
 * matter to each block of queries, and attends to those alone. By default blocks are estimated from a sample of the scores and
 * not as in the paper, whose rule is {@link paperOptions}.
 *
 * Exact where no query stands behind the first segment (without a causal mask: where `keyLength <= segmentSize`) or
 * `threshold` is 1; and, with `auto`, where blocks are not expected to pay. Then the output is that of `flashAttention`.
 *
 * ```js
 * const output = pbsAttention(query, key, value, {threshold: 0.9});
 * const same = query.pbsAttention(key, value, {threshold: 0.9});
 * ```
 *
 * Queries may be a chunk of a prompt that ends with the keys so far (`queryOffset` says otherwise): keys before it are then
 * sorted by the first rows of the chunk (`causalSafe`: not at all). Blocks of queries count from the chunk's first row; one that reaches over the end of a segment
 * keeps every block of both. For decoding keep a plan and attend by it (`plan`, {@link extendPBSAttentionPlan}): nothing is
 * scored then, and only the blocks of the plan are read.
 *
 * In a batch padded on the right (`keyLengths`), rows that are padding sort no keys.
 *
 * What a call did, it tells to `onReport`:
 *
 * ```js
 * pbsAttention(query, key, value, {
 *   onReport: async (report) => {
 *     console.log(report.exactReason ?? `${await report.density()} of the blocks, ${await report.keptMass()} of the mass`);
 *     report.dispose();
 *   },
 * });
 * ```
 *
 * Differentiable by query, key and value, not by `alibiSlopes`, `sinks` and `mask`, over the same blocks: key order and selection count as constants, as the ranking in other sparse attention does. The gradient makes the plan anew
 * (unless it was given) and computes the kept blocks again, in float32, about 4 times the multiply-adds of the forward pass;
 * where that was exact, so is the gradient. See {@link flashAttention} for what is kept.
 *
 * Without a batch, `[heads, length, headDim]`, query, key and value are a batch of one, and so is what comes back; plans keep the batch.
 *
 * @param query float32 `[batch, heads, queryLength, headDim]`.
 * @param key float32 `[batch, keyValueHeads, keyLength, headDim]`; `heads` is a multiple of `keyValueHeads`, and query head
 *     `h` reads key head `h / (heads / keyValueHeads)` (grouped-query attention, no repeated keys needed).
 * @param value float32 `[batch, keyValueHeads, keyLength, valueDim]`. Key and value may both be what {@link packFloat16} gives of
 *     such.
 * @param options see {@link PBSAttentionOptions}: `threshold = 0.9`, `blockSize = 128`, `keyBlockSize = 64`,
 *     `segmentSize = 256`, `estimate = 'sampled'`, `permute = true`, `causalSafe = false`, `causal = true`,
 *     `scale = 1 / sqrt(headDim)`, `auto = true`, `queryOffset = keyLength - queryLength`; `keyLengths`, `window`, `softCap`, `alibiSlopes`, `sinks`, `mask`,
 *     `plan`, `onReport`.
 * @returns float32 `[batch, heads, queryLength, valueDim]`, rows in the order of the query; zeros in a row that sees no key.
 * @throws Error if a tensor or an option is not of that form, or if the device cannot hold the tensors;
 *     nothing has been launched then.
 * @function
 */
export const pbsAttention = op({pbsAttention_}) as AttentionOp<PBSAttentionOptions>;

function pbsAttention_(...[q, k, v, options]: Parameters<typeof pbsAttention>): Tensor {
  const tensors = attentionTensors('pbsAttention', q, k, v);
  const {query, key, value, isOneEntry} = tensors;
  const attrs = pbsAttentionAttrs('pbsAttention', commonOptions(options), query, key);
  checkBackend('pbsAttention', PBSAttention);
  const mask = maskInput('pbsAttention', options, tensors);
  if (hasEntries(options)) {
    for (const name of ['plan', 'onReport'] as const) {
      const takes = 'none with keyStarts or a queryOffset of each entry';
      check(options[name] === undefined, 'pbsAttention', name, 'got one', takes);
    }
    const attend = (...x: [Tensor4D, Tensor4D, Tensor4D, PBSAttentionOptions]) => [pbsAttention(...x)];
    return asGiven(
      attendByEntry('pbsAttention', tensors, {...options, ...mask}, attend, [zeroRows(tensors)])[0],
      tensors,
    );
  }
  const {plan, onReport, keyLengths} = withPlanLengths('pbsAttention', options) ?? {};
  const inputs: NamedTensorMap = {
    query,
    key,
    value,
    ...keyLengthsInput('pbsAttention', {keyLengths}, key),
    ...headInputs('pbsAttention', options, query),
    ...mask,
    ...(plan !== undefined && planInputs('pbsAttention', plan, blockGeometry(query, key, attrs), attrs.causal)),
  };
  if (onReport === undefined) {
    return asGiven(runDifferentiable(PBSAttention, inputs, attrs), {isOneEntry});
  }
  check(typeof onReport === 'function', 'pbsAttention', 'onReport', `got ${describe(onReport)}`, 'a function');
  const report = reportOf(inputs, attrs, keyLengths);
  try {
    // By the plan that the report holds, so that nothing is planned twice.
    const {keyIndices, blockMask} = report.plan;
    const by: NamedTensorMap = report.exactReason === undefined ? {keyIndices, blockMask} : {};
    const output = runDifferentiable(PBSAttention, {...inputs, ...by}, attrs);
    onReport(report);
    return asGiven(output, {isOneEntry});
  } catch (error) {
    report.dispose();
    throw error;
  }
}
