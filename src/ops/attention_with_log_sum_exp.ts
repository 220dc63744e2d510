import type {NamedTensorMap, Tensor, Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  div,
  exp,
  fill,
  greater,
  log,
  max,
  maximum,
  mul,
  op,
  reshape,
  stack,
  sub,
  sum,
  unstack,
  where,
} from '@tensorflow/tfjs-core';
import {AttentionWithLogSumExp} from '../attention/attention_kernels.js';
import {runDifferentiable} from '../attention/gradients.js';
import {headInputs, keyLengthsInput, maskInput} from './attention_inputs.js';
import {asGiven, attentionTensors} from './attention_tensors.js';
import {attendByEntry, commonOptions, hasEntries, zeroRows} from './batch_entries.js';
import {check, checkBackend, describe, flashAttentionAttrs} from './check_arguments.js';
import type {FlashAttentionOptions, TensorInput} from './options.js';
import type {AttentionPart} from './results.js';

/**
 * {@link flashAttention} with the natural logarithm of each row's sum of exp(score): what {@link mergeAttention} needs to put results over
 * parts of the keys together. A sink counts in it. On WebGPU in float16 it runs without matrix units.
 *
 * Differentiable by query, key, value and a float32 `mask`, through both results.
 *
 * @param query float32 `[batch, heads, queryLength, headDim]`.
 * @param key float32 `[batch, keyValueHeads, keyLength, headDim]`; `heads` is a multiple of `keyValueHeads`.
 * @param value float32 `[batch, keyValueHeads, keyLength, valueDim]`. Key and value may both be what {@link packFloat16} gives of
 *     such.
 * @param options those of {@link flashAttention}.
 * @returns `output`, float32 `[batch, heads, queryLength, valueDim]`, and `logSumExp`, float32 `[batch, heads, queryLength]`, -Infinity in a row
 *     that sees no key and has no sink. Both without the batch where the tensors came without.
 * @throws Error as {@link flashAttention} does.
 * @function
 */
export const attentionWithLogSumExp =
  // op() is typed for functions of one tensor; it also takes one that returns several under names.
  op({attentionWithLogSumExp_}) as unknown as (
    query: TensorInput,
    key: TensorInput,
    value: TensorInput,
    options?: FlashAttentionOptions,
  ) => AttentionPart;

function attentionWithLogSumExp_(...[q, k, v, options]: Parameters<typeof attentionWithLogSumExp>): AttentionPart {
  const name = 'attentionWithLogSumExp';
  const tensors = attentionTensors(name, q, k, v);
  const {query, key, value, isOneEntry} = tensors;
  const attrs = flashAttentionAttrs(name, commonOptions(options), query, key);
  checkBackend(name, AttentionWithLogSumExp);
  const mask = maskInput(name, options, tensors);
  if (hasEntries(options)) {
    const attend = (...x: [Tensor4D, Tensor4D, Tensor4D, FlashAttentionOptions]) => {
      const part = attentionWithLogSumExp(...x);
      return [part.output, part.logSumExp];
    };
    const {sinks} = headInputs(name, options, query);
    const ofNothing = (rows: number) => {
      const shape = [1, query.shape[1], rows];
      return sinks ? add(fill(shape, 0), reshape(sinks, [1, -1, 1])) : fill(shape, -Infinity);
    };
    const unseen = [zeroRows(tensors), ofNothing];
    const [output, logSumExp] = attendByEntry(name, tensors, {...options, ...mask}, attend, unseen);
    return {output: asGiven(output, tensors), logSumExp: asGiven(logSumExp, tensors)};
  }
  const inputs: NamedTensorMap = {
    query,
    key,
    value,
    ...keyLengthsInput(name, options, key),
    ...headInputs(name, options, query),
    ...mask,
  };
  const [output, logSumExp] = runDifferentiable<[Tensor4D, Tensor3D]>(AttentionWithLogSumExp, inputs, attrs);
  return {output: asGiven(output, {isOneEntry}), logSumExp: asGiven(logSumExp, {isOneEntry})};
}

/** Below the logarithms of scores, and above -1e20, the least maximum of tfjs's WebGL: stands for that of a row that saw nothing. */
const nothing = -1e19;

/**
 * Attention over all keys, of results over parts of them: the same rows, and each key in one part. A prefix that many continuations share is so
 * attended to once, by the rows of all of them together:
 *
 * ```js
 * // Rows of 3 continuations, [3, heads, length, headDim], stand after 512 keys that all share.
 * const rows = tf.reshape(tf.transpose(query, [1, 0, 2, 3]), [1, heads, 3 * length, headDim]);
 * const prefix = attentionWithLogSumExp(rows, prefixKey, prefixValue, {causal: false});
 * const ofContinuations = {
 *   output: tf.transpose(tf.reshape(prefix.output, [heads, 3, length, headDim]), [1, 0, 2, 3]),
 *   logSumExp: tf.transpose(tf.reshape(prefix.logSumExp, [heads, 3, length]), [1, 0, 2]),
 * };
 * const own = attentionWithLogSumExp(query, key, value);
 * const {output} = mergeAttention([ofContinuations, own]);
 * ```
 *
 * A sink counts once: give `sinks` to one part. Made of tfjs's own ops, and
 * differentiable.
 *
 * @param parts of {@link attentionWithLogSumExp} or of this function: `output` float32 `[batch, heads, queryLength, valueDim]`, `logSumExp` float32
 *     `[batch, heads, queryLength]`.
 * @returns the same of all keys.
 * @throws Error if there is no part, or one is not of the form and the shape of the first.
 * @function
 */
export const mergeAttention = op({mergeAttention_}) as (
  parts: ReadonlyArray<Record<keyof AttentionPart, Tensor>>,
) => AttentionPart;

function mergeAttention_(parts: AttentionPart[]): AttentionPart {
  const takes = 'one or more results of attentionWithLogSumExp, of the same shapes';
  const areParts = Array.isArray(parts) && parts.length > 0;
  check(areParts, 'mergeAttention', 'parts', `got ${describe(parts)}`, takes);
  const shape = parts[0]?.output?.shape ?? [];
  for (const {output, logSumExp} of parts) {
    const got = `got output [${output?.shape}] and logSumExp [${logSumExp?.shape}]`;
    const fits =
      (shape.length === 4 || shape.length === 3) &&
      String(output?.shape) === String(shape) &&
      String(logSumExp?.shape) === String(shape.slice(0, -1));
    check(fits, 'mergeAttention', 'parts', got, takes);
  }
  const logSums = stack(parts.map((part) => maximum(part.logSumExp, nothing)));
  const top = max(logSums, 0);
  const weights = exp(sub(logSums, top));
  const all = sum(weights, 0);
  const shares = unstack(div(weights, all));
  const outputs = parts.map(({output}, i) => mul(output, reshape(shares[i], [...shape.slice(0, -1), 1])));
  const total = add(top, log(all));
  return {
    output: outputs.reduce((a: Tensor, b) => add(a, b)) as Tensor4D,
    logSumExp: where(greater(total, nothing / 2), total, -Infinity) as Tensor3D,
  };
}
