import {
  add,
  fill,
  matMul,
  mul,
  reshape,
  softmax,
  linalg,
  sub,
  type Tensor2D,
  type Tensor4D,
  tidy,
} from '@tensorflow/tfjs-core';
import type {Inputs} from './captured_attention';

/** Added to scores of keys after the query. */
const HIDDEN = -1e9;

/** `[length, length]`: 0 where the query sees the key, else -1e9. Made once, as a careful user would. */
export function causalMask(length: number): Tensor2D {
  return tidy(() => mul(sub(1, linalg.bandPart(fill([length, length], 1), -1, 0)), HIDDEN) as Tensor2D);
}

/**
 * What a page writes without this library: matMul, scale, additive mask, softmax, matMul. Heads that share a key head are
 * stacked into one matrix, so that nothing is repeated.
 */
export function composedAttention({query, key, value}: Inputs, mask: Tensor2D): Tensor4D {
  return tidy(() => {
    const [, heads, length, headDim] = query.shape;
    const keyHeads = key.shape[1];
    const rows = (heads / keyHeads) * length;
    const keys = reshape(key, [keyHeads, length, headDim]);
    const products = matMul(reshape(query, [keyHeads, rows, headDim]), keys, false, true);
    const scores = reshape(mul(products, 1 / Math.sqrt(headDim)), [heads, length, length]);
    const weights = reshape(softmax(add(scores, mask)), [keyHeads, rows, length]);
    const output = matMul(weights, reshape(value, [keyHeads, length, headDim]));
    return reshape(output, [1, heads, length, headDim]);
  });
}
