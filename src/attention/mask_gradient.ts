import type {NamedTensorMap, Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {
  abs,
  add,
  concat,
  div,
  divNoNan,
  exp,
  greater,
  greaterEqual,
  less,
  logicalAnd,
  matMul,
  max,
  maximum,
  mul,
  range,
  reshape,
  scalar,
  slice,
  sub,
  sum,
  tanh,
  tidy,
  where,
} from '@tensorflow/tfjs-core';
import type {FlashAttentionAttrs} from './attention_kernels.js';

/** Scores of hidden keys, below all others. */
const hidden = -1e30;

/**
 * Gradient of exact attention by a mask that is added to its scores, float32, shaped as the mask: the gradients of the scores, d score =
 * weight · (dy · value − delta), added up along what the mask broadcasts. Made of tfjs's own ops, in tiles of rows of one batch entry, so that memory beyond
 * the mask's own does not grow with the length's square.
 *
 * @param inputs those of the gradient kernels.
 * @param heldScores scores that are held at a time: by default 16 MiB of float32 a tensor.
 */
export function maskGradient(inputs: NamedTensorMap, attrs: FlashAttentionAttrs, heldScores = 2 ** 22): Tensor {
  const [batch, heads, queryLength] = inputs.query.shape;
  const keyLength = inputs.key.shape[2]!;
  const rows = Math.max(1, Math.floor(heldScores / (heads * keyLength)));
  const [ofBatch, , ofRows] = inputs.mask.shape;
  const entries = Array.from({length: batch}, (_, entry) => {
    const tiles = [];
    for (let first = 0; first < queryLength; first += rows) {
      const tile = {entry, first, rows: Math.min(rows, queryLength - first)};
      tiles.push(tidy(() => sumBroadcast(scoreGradients(inputs, attrs, tile), inputs.mask.shape)));
    }
    return joined(tiles, ofRows === 1 ? undefined : 2);
  });
  return joined(entries, ofBatch === 1 ? undefined : 0);
}

/** Side by side along an axis, or added up where there is none. */
const joined = (parts: Tensor[], axis?: number): Tensor =>
  axis === undefined || parts.length === 1 ? parts.reduce((a, b) => add(a, b)) : concat(parts, axis);

function sumBroadcast(x: Tensor, shape: number[]): Tensor {
  const axes = [1, 2, 3].filter((axis) => shape[axis] === 1);
  return axes.length > 0 ? sum(x, axes, true) : x;
}

interface RowTile {
  entry: number;
  first: number;
  rows: number;
}

/** `[1, heads, rows, keyLength]`; 0 where a key is not seen. */
function scoreGradients(inputs: NamedTensorMap, attrs: FlashAttentionAttrs, {entry, first, rows}: RowTile): Tensor {
  const {query, key, value, mask, output, dy, dLogSumExp, alibiSlopes, sinks, keyLengths} = inputs;
  const {causal, scale, softCap, queryOffset, window = Infinity} = attrs;
  const heads = query.shape[1]!;
  const [, keyValueHeads, keyLength] = key.shape;
  const ofRows = (x: Tensor) => {
    const size = x.shape.map((length, axis) => (axis === 0 ? 1 : axis === 2 ? rows : length));
    return slice(x, [entry, 0, first, 0].slice(0, x.rank), size);
  };
  /** Of the rows of grouped heads together with the keys that they share. */
  const products = (x: Tensor, keys: Tensor) => {
    const [ofHeads, shared] = [ofRows(x), slice(keys, [entry, 0, 0, 0], [1, ...keys.shape.slice(1)])];
    const grouped = reshape(ofHeads, [keyValueHeads!, -1, x.shape[3]!]);
    const together = reshape(shared, [keyValueHeads!, keyLength!, x.shape[3]!]);
    return reshape(matMul(grouped, together, false, true), [1, heads, rows, keyLength!]);
  };
  const perHead = (x: Tensor) => reshape(x, [1, heads, 1, 1]);

  let scores: Tensor = mul(products(query, key), scale);
  if (softCap !== undefined) scores = mul(tanh(div(scores, softCap)), softCap);
  const keys = reshape(range(0, keyLength!), [1, 1, 1, -1]);
  const distances = sub(reshape(range(queryOffset + first, queryOffset + first + rows), [1, 1, -1, 1]), keys);
  if (alibiSlopes) scores = sub(scores, mul(perHead(alibiSlopes), abs(distances)));
  const bias = maskOfRows(mask, {entry, first, rows});
  // −Infinity alone is below the lowest number.
  let sees: Tensor = greaterEqual(bias, -3.4028234663852886e38);
  if (causal) sees = logicalAnd(sees, greaterEqual(distances, 0));
  if (window !== Infinity) sees = logicalAnd(sees, less(causal ? distances : abs(distances), window));
  if (keyLengths) sees = logicalAnd(sees, less(keys, reshape(slice(keyLengths, [entry], [1]), [1, 1, 1, 1])));
  scores = where(sees, add(scores, bias), scalar(hidden));

  const top = max(scores, 3, true);
  const most = sinks ? maximum(top, perHead(sinks)) : top;
  const weights = where(greater(scores, hidden), exp(sub(scores, most)), scalar(0));
  const ofKeys = sum(weights, 3, true);
  const all = sinks ? add(ofKeys, exp(sub(perHead(sinks), most))) : ofKeys;
  const ofOutput = sum(mul(ofRows(output), ofRows(dy)), 3, true);
  const delta = dLogSumExp ? sub(ofOutput, reshape(ofRows(dLogSumExp), [1, heads, rows, 1])) : ofOutput;
  const gradients = mul(divNoNan(weights, all), sub(products(dy, value), delta));
  return where(greater(weights, 0), gradients, scalar(0));
}

function maskOfRows(mask: Tensor, {entry, first, rows}: RowTile): Tensor4D {
  const [batch, heads, length, keys] = mask.shape;
  return slice(
    mask as Tensor4D,
    [batch === 1 ? 0 : entry, 0, length === 1 ? 0 : first, 0],
    [1, heads, length === 1 ? 1 : rows, keys],
  );
}
