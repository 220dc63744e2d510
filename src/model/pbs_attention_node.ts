import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {add, linalg, matMul, mul, ones, reshape, softmax, sub, tidy, zeros} from '@tensorflow/tfjs-core';
import type {GraphNode, IAttrValue} from '@tensorflow/tfjs-converter';
import {registerOp} from '@tensorflow/tfjs-converter';
import {check} from '../ops/check_arguments.js';
import type {PBSAttentionSettings} from '../ops/options.js';
import {pbsAttention} from '../ops/pbs_attention.js';

/** Name of the op in graphs. */
export const nodeOp = 'PBSAttention';

/** Options of `pbsAttention` and their attributes, named and typed as TensorFlow does. */
const attributes: Array<[option: keyof PBSAttentionSettings, attribute: string, type: 'i' | 'f' | 'b' | 's']> = [
  ['causal', 'causal', 'b'],
  ['scale', 'scale', 'f'],
  ['window', 'window', 'i'],
  ['softCap', 'soft_cap', 'f'],
  ['threshold', 'threshold', 'f'],
  ['blockSize', 'block_size', 'i'],
  ['keyBlockSize', 'key_block_size', 'i'],
  ['segmentSize', 'segment_size', 'i'],
  ['estimate', 'estimate', 's'],
  ['permute', 'permute', 'b'],
  ['causalSafe', 'causal_safe', 'b'],
  ['auto', 'auto', 'b'],
  ['expectedDensity', 'expected_density', 'f'],
  ['precision', 'precision', 's'],
];

/**
 * Set on nodes that took the place of matMul, softmax and matMul: shapes that are not those of self-attention (another
 * key length, another head dim of values, broadcast batches) are computed as before, because a graph does not tell them beforehand.
 */
const composedFallback = 'composed_fallback';

/**
 * Set beside `composed_fallback` where there were masks, which have a size of their own: their numbers of queries and keys, each a number, `axis:I`
 * for that axis of the scores, or `input:I` for an input of the node, int32. Where they are not the lengths, scores and masks were broadcast.
 */
const maskSize = 'mask_size';

export function maskSizeAttribute(size: string): Record<string, IAttrValue> {
  return {[maskSize]: {s: btoa(size)}};
}

/** The attributes of a node that takes the place of others, in the JSON form of GraphDef. */
export function nodeAttributes(options: PBSAttentionSettings): Record<string, IAttrValue> {
  const attrs: Record<string, IAttrValue> = {[composedFallback]: {b: true}};
  for (const [option, attribute, type] of attributes) {
    const value = options[option];
    if (value !== undefined) {
      attrs[attribute] = {[type]: type === 's' ? btoa(String(value)) : value};
    }
  }
  return attrs;
}

/**
 * Makes the node `PBSAttention` known to tfjs's graph executor, so that `tf.loadGraphModel` runs graphs that hold it. Call
 * it once, before the model is executed.
 *
 * ```js
 * import {registerPBSAttentionOp} from 'tfjs-pbs-attention/graph';
 *
 * registerPBSAttentionOp();
 * const model = await tf.loadGraphModel(url);
 * ```
 *
 * Inputs of the node: query, key and value, float32 `[batch, heads, length, headDim]`, with fewer key and value heads in
 * grouped-query attention; or all three of another rank from 2 up, `[..., length, headDim]`, with the same leading
 * dimensions. Lengths and head dims may differ as in `pbsAttention`. One output, shaped as the query but for its last dimension,
 * that of the value. Attributes, all optional, with the defaults of `pbsAttention`: `causal`,
 * `scale`, `window`, `soft_cap`, `threshold`, `block_size`, `key_block_size`, `segment_size`, `estimate`, `permute`, `causal_safe`, `auto`, `expected_density`,
 * `precision`.
 *
 * @throws Error (when the node is executed) on other inputs and attributes.
 */
export function registerPBSAttentionOp(): void {
  registerOp(nodeOp, runNode);
}

function runNode({inputs, attrs}: GraphNode): Tensor {
  const isWhole = inputs.length === 3 || (inputs.length > 3 && attrs[maskSize] !== undefined);
  check(isWhole, nodeOp, 'inputs', `got ${inputs.length}`, 'query, key and value');
  const [query, key, value] = inputs;
  const given = attributes.filter(([, attribute]) => attrs[attribute] !== undefined);
  const options: PBSAttentionSettings = Object.fromEntries(given.map(([option, name]) => [option, attrs[name]]));
  return tidy(() => {
    const size = maskSizeOf(inputs, attrs[maskSize]);
    const isOfLengths = size === undefined || isMaskOf(query, key, size, options.causal);
    if (attrs[composedFallback] && !(areTaken(query, key, value) && isOfLengths)) {
      return composedAttention(query, key, value, options, size);
    }
    checkRanks(query, [key, value]);
    const attended = pbsAttention(withHeads(query), withHeads(key), withHeads(value), options);
    return reshape(attended, [...query.shape.slice(0, -1), value.shape[value.rank - 1]]);
  });
}

/** The size of the mask that was replaced. */
function maskSizeOf(inputs: Tensor[], attribute: unknown): [number, number] | undefined {
  if (attribute === undefined) {
    return undefined;
  }
  const [query, key] = inputs;
  const scores = [...query.shape.slice(0, -1), key.shape[key.rank - 2]];
  const [queries, keys] = String(attribute)
    .split(' ')
    .map((length) => {
      const [from, number] = length.includes(':') ? length.split(':') : ['', length];
      const i = Number(number);
      const value = from === 'axis' ? scores.at(i) : from === 'input' ? inputs[i]?.dataSync()[0] : i;
      check(Number.isInteger(value), nodeOp, maskSize, `got '${length}'`, 'a number, an axis or an input');
      return value as number;
    });
  check(keys !== undefined, nodeOp, maskSize, `got '${String(attribute)}'`, 'numbers of queries and keys');
  return [queries, keys];
}

/** Whether a mask has the lengths of query and key. One that hides nothing may be broadcast. */
function isMaskOf(query: Tensor, key: Tensor, size: [queries: number, keys: number], causal = true): boolean {
  const lengths = [query.shape[query.rank - 2], key.shape[key.rank - 2]];
  return lengths.every((length, axis) => size[axis] === length || (!causal && size[axis] === 1));
}

/** Whether they are float32, and the shapes are those of self-attention: one length, one head dim, no broadcast but that of one key and value head. */
function areTaken(query: Tensor, key: Tensor, value: Tensor): boolean {
  const {shape, rank} = query;
  const isOneHead = rank === 4 && key.shape[1] === 1 && value.shape[1] === 1;
  return [query, key, value].every(
    (x) =>
      x.rank === rank &&
      x.dtype === 'float32' &&
      shape.every((size, axis) => size > 0 && (size === x.shape[axis] || (isOneHead && axis === 1))),
  );
}

/** Of rank 4 the op itself checks batch and heads. */
function checkRanks(query: Tensor, others: Tensor[]): void {
  check(query.rank >= 2, nodeOp, 'inputs', `got [${query.shape}]`, '[..., length, headDim]');
  for (const x of others) {
    const got = `got [${x.shape}] with query [${query.shape}]`;
    check(x.rank === query.rank, nodeOp, 'inputs', got, 'one rank');
    const leads = query.rank === 4 || query.shape.slice(0, -2).every((size, axis) => size === x.shape[axis]);
    check(leads, nodeOp, 'inputs', got, "the query's leading dimensions");
  }
}

/** `[..., length, headDim]` → `[batch, heads, length, headDim]`. */
function withHeads(x: Tensor): Tensor4D {
  const [length, headDim] = x.shape.slice(-2);
  const heads = x.rank >= 4 ? x.shape[x.rank - 3] : 1;
  return reshape(x, [-1, heads, length, headDim]);
}

/** The nodes that a rewritten node stands for; the causal mask counts from the first query and the first key. */
function composedAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  {causal = true, scale = 1}: PBSAttentionSettings,
  size?: [queries: number, keys: number],
): Tensor {
  let scores = mul(matMul(query, key, false, true), scale);
  // Without a query or a key there is nothing to hide, and tfjs cannot make the mask.
  if (causal && scores.size > 0) {
    const visible = linalg.bandPart(ones(size ?? (scores.shape.slice(-2) as [number, number])), -1, 0);
    scores = add(scores, mul(sub(1, visible), -1e9));
  }
  if (!causal && size) {
    scores = add(scores, zeros(size));
  }
  return matMul(softmax(scores), value);
}
