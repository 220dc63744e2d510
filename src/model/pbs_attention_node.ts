import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  cast,
  expandDims,
  less,
  matMul,
  mul,
  range,
  reshape,
  softmax,
  tidy,
  transpose,
  zeros,
} from '@tensorflow/tfjs-core';
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
 * Set on nodes that took the place of matMul, softmax and matMul: shapes that `pbsAttention` does not take (broadcast batches, other lengths
 * under a causal mask) are computed as before, because a graph does not tell them beforehand.
 */
const composedFallback = 'composed_fallback';

/**
 * Set beside `composed_fallback` where there were masks, which have a size of their own: their numbers of queries and keys, each a number, `axis:I`
 * for that axis of the scores, or `input:I` for an input of the node, int32. Where they are not the lengths, scores and masks were broadcast. With
 * `end` behind them the last query stands at the last key, else the first at the first.
 */
const maskSize = 'mask_size';

/** Operands whose last two axes may be swapped. */
const operands = ['query', 'key', 'value', 'output'] as const;
type Operands<T> = Partial<Record<(typeof operands)[number], T>>;

interface NodeForm {
  /** As `mask_size` has it; empty without masks that have a size. */
  maskSize: string;
  /** Which input of the node is added to the scores. */
  mask?: number;
  transposed: Operands<boolean>;
}

/** The attributes of what an attention in a graph is besides options. */
export function formAttributes({maskSize: size, mask, transposed}: NodeForm): Record<string, IAttrValue> {
  const swapped = operands.filter((name) => transposed[name]).map((name) => [`transpose_${name}`, {b: true}]);
  return {
    ...(size !== '' && {[maskSize]: {s: btoa(size)}}),
    ...(mask !== undefined && {mask: {i: mask}}),
    ...(Object.fromEntries(swapped) as Record<string, IAttrValue>),
  };
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
 * `precision`. With `transpose_query`, `transpose_key`, `transpose_value` or `transpose_output` that tensor is `[..., headDim, length]`. `mask` is the
 * number of an input that is added to the scores, float32, broadcast to `[..., queries, keys]`.
 *
 * @throws Error (when the node is executed) on other inputs and attributes.
 */
export function registerPBSAttentionOp(): void {
  registerOp(nodeOp, runNode);
}

function runNode({inputs, attrs}: GraphNode): Tensor {
  const isWhole =
    inputs.length === 3 || (inputs.length > 3 && [maskSize, 'mask'].some((name) => attrs[name] !== undefined));
  check(isWhole, nodeOp, 'inputs', `got ${inputs.length}`, 'query, key and value');
  const given = attributes.filter(([, attribute]) => attrs[attribute] !== undefined);
  const options: PBSAttentionSettings = Object.fromEntries(given.map(([option, name]) => [option, attrs[name]]));
  return tidy(() => {
    const [query, key, value] = operands.slice(0, 3).map((name, i) => inAxes(inputs[i], attrs[`transpose_${name}`]));
    const mask = attrs['mask'] === undefined ? undefined : inputs[Number(attrs['mask'])];
    const size = maskSizeOf(inputs, query, key, attrs[maskSize]);
    return inAxes(
      attend(query, key, value, options, mask, size, Boolean(attrs[composedFallback])),
      attrs['transpose_output'],
    );
  });
}

/** A tensor whose last two axes an attribute may have swapped. */
function inAxes(x: Tensor, isTransposed: unknown): Tensor {
  const axes = x.shape.map((_, axis) => axis);
  return isTransposed && x.rank >= 2 ? transpose(x, [...axes.slice(0, -2), x.rank - 1, x.rank - 2]) : x;
}

function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: PBSAttentionSettings,
  mask: Tensor | undefined,
  size: MaskSize | undefined,
  hasFallback: boolean,
): Tensor {
  const ofHeads = mask && maskWithHeads(mask, query, key);
  const isMaskTaken = mask === undefined || ofHeads !== undefined;
  if (hasFallback && !(isMaskTaken && areTaken(query, key, value, size, options.causal))) {
    return composedAttention(query, key, value, options, mask, size);
  }
  checkRanks(query, [key, value]);
  const takes = 'float32, broadcast to [..., queries, keys]';
  check(isMaskTaken, nodeOp, 'mask', `got ${mask?.dtype} [${mask?.shape}] with query [${query.shape}]`, takes);
  const tensors = [withHeads(query), withHeads(key), withHeads(value)] as const;
  const attended = pbsAttention(...tensors, {...options, ...(ofHeads && {mask: ofHeads})});
  return reshape(attended, [...query.shape.slice(0, -1), value.shape[value.rank - 1]]);
}

/** Numbers of queries and keys, and where the first or the last of both are the same. */
type MaskSize = [queries: number, keys: number, from: string | undefined];

/** The size of the mask that was replaced. */
function maskSizeOf(inputs: Tensor[], query: Tensor, key: Tensor, attribute: unknown): MaskSize | undefined {
  if (attribute === undefined) {
    return undefined;
  }
  const scores = [...query.shape.slice(0, -1), key.shape[key.rank - 2]];
  const [ofQueries, ofKeys, from] = String(attribute).split(' ');
  check(ofKeys !== undefined, nodeOp, maskSize, `got '${String(attribute)}'`, 'numbers of queries and keys');
  const [queries, keys] = [ofQueries, ofKeys].map((length) => {
    const [of, number] = length.includes(':') ? length.split(':') : ['', length];
    const i = Number(number);
    const value = of === 'axis' ? scores.at(i) : of === 'input' ? inputs[i]?.dataSync()[0] : i;
    check(Number.isInteger(value), nodeOp, maskSize, `got '${length}'`, 'a number, an axis or an input');
    return value as number;
  });
  return [queries, keys, from];
}

/**
 * Whether the shapes are those that `pbsAttention` takes, float32 without a batch that is broadcast but one key and value head, and masks have
 * the lengths of query and key. One that hides nothing may be broadcast.
 */
function areTaken(query: Tensor, key: Tensor, value: Tensor, size: MaskSize | undefined, causal = true): boolean {
  const {shape, rank} = query;
  const isOneHead = rank === 4 && key.shape[1] === 1 && value.shape[1] === 1;
  const areBatches = [key, value].every(
    (x) => x.rank === rank && shape.slice(0, -2).every((n, axis) => n === x.shape[axis] || (isOneHead && axis === 1)),
  );
  const [queries, keys] = [shape[rank - 2], key.shape[rank - 2]];
  const areLengths = !causal || queries === keys || (size?.[2] === 'end' && queries < keys);
  const isOfSize = [queries, keys].every(
    (length, i) => size === undefined || size[i] === length || (!causal && size[i] === 1),
  );
  return (
    [query, key, value].every((x) => x.dtype === 'float32' && x.size > 0) &&
    areBatches &&
    key.shape[rank - 1] === shape[rank - 1] &&
    value.shape[rank - 2] === keys &&
    areLengths &&
    isOfSize
  );
}

/** A mask as `pbsAttention` takes it, `[batch, heads, queries, keys]` with 1 where it is broadcast; none if it is no such mask. */
function maskWithHeads(mask: Tensor, query: Tensor, key: Tensor): Tensor4D | undefined {
  const scores = [...query.shape.slice(0, -1), key.shape[key.rank - 2]];
  if (mask.dtype !== 'float32' || mask.rank > query.rank) {
    return undefined;
  }
  const shape = [...scores.slice(mask.rank).map(() => 1), ...mask.shape];
  const batch = shape.slice(0, query.rank >= 4 ? -3 : -2);
  const isBatch = batch.every((n) => n === 1) || batch.every((n, axis) => n === scores[axis]);
  const isBroadcast = shape.every((n, axis) => n === 1 || n === scores[axis]);
  const heads = query.rank >= 4 ? shape[query.rank - 3] : 1;
  return isBatch && isBroadcast
    ? reshape(mask, [-1, heads, ...shape.slice(-2)] as [number, number, number, number])
    : undefined;
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

/** The nodes that a rewritten node stands for. */
function composedAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  {causal = true, scale = 1}: PBSAttentionSettings,
  mask: Tensor | undefined,
  size: MaskSize | undefined,
): Tensor {
  let scores = mul(matMul(query, key, false, true), scale);
  const [queries, keys, from] = size ?? ([...scores.shape.slice(-2), undefined] as MaskSize);
  // Without a query or a key there is nothing to hide, and tfjs cannot make the mask.
  if (causal && scores.size > 0) {
    const first = from === 'end' ? keys - queries : 0;
    const hidden = less(expandDims(range(first, first + queries, 1), 1), range(0, keys, 1));
    scores = add(scores, mul(cast(hidden, 'float32'), -1e9));
  }
  if (!causal && size) {
    scores = add(scores, zeros([queries, keys]));
  }
  return matMul(softmax(mask ? add(scores, mask) : scores), value);
}
