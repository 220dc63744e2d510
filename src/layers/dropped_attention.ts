import type {Tensor4D} from '@tensorflow/tfjs-core';
import {
  any,
  cast,
  dropout,
  greaterEqual,
  logicalAnd,
  matMul,
  mul,
  ones,
  range,
  reshape,
  softmax,
  where,
} from '@tensorflow/tfjs-core';

/**
 * Attention with some of its weights left out, by tfjs's ops: `[batch, heads, queryLength, keyLength]` scores exist at once. Zeros in a row that
 * sees nothing.
 *
 * @param form row i sees the keys up to i, if it is causal, and those that the mask shows.
 * @param rate share of the weights that is left out; the others grow by so much.
 */
export function droppedAttention(
  query: Tensor4D,
  key: Tensor4D,
  value: Tensor4D,
  {causal, mask}: {causal: boolean; mask?: Tensor4D},
  rate: number,
): Tensor4D {
  const [batch, heads, rows, headDim] = query.shape;
  const shape: [number, number, number, number] = [batch, heads, rows, key.shape[2]];
  const upTo = () => greaterEqual(reshape(range(0, rows), [1, 1, rows, 1]), range(0, shape[3]));
  const seen = [...(causal ? [upTo()] : []), ...(mask ? [mask] : [])];
  const visible = seen.reduce((a, b) => logicalAnd(a, b), ones(shape, 'bool'));
  const scores = mul(matMul(query, key, false, true), 1 / Math.sqrt(headDim));
  const weights = softmax(where(visible, scores, -1e9));
  const attended = matMul(dropout(weights, rate), value);
  return mul(attended, cast(any(visible, -1, true), 'float32')) as Tensor4D;
}
