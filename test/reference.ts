import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, linalg, matMul, mul, ones, randomNormal, reshape, softmax, sub, tensor4d, tidy, tile} from '@tensorflow/tfjs-core';

/** Attention as tfjs models write it: matMul, mask, softmax, matMul, with keys and values repeated for grouped heads. */
export function composedAttention(
  query: Tensor4D,
  key: Tensor4D,
  value: Tensor4D,
  {causal = true, scale = 1 / Math.sqrt(query.shape[3])}: {causal?: boolean; scale?: number} = {},
): Tensor4D {
  return tidy(() => {
    const [k, v] = [key, value].map((x) => repeatHeads(x, query.shape[1] / x.shape[1]));
    let scores = mul(matMul(query, k, false, true), scale) as Tensor4D;
    if (causal) {
      const length = query.shape[2];
      const visible = linalg.bandPart(ones([length, length]), -1, 0);
      scores = add(scores, mul(sub(1, visible), -1e9)) as Tensor4D;
    }
    return matMul(softmax(scores), v) as Tensor4D;
  });
}

export function repeatHeads(x: Tensor4D, times: number): Tensor4D {
  const [batch, heads, length, headDim] = x.shape;
  return reshape(tile(reshape(x, [batch, heads, 1, length, headDim]), [1, 1, times, 1, 1]), [
    batch,
    heads * times,
    length,
    headDim,
  ]);
}

export interface Shape {
  batch?: number;
  heads?: number;
  keyValueHeads?: number;
  length: number;
  headDim: number;
}

export interface Inputs {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
  queryShape: [number, number, number, number];
  keyShape: [number, number, number, number];
}

/**
 * Random inputs, the same on every backend: a few keys in many matter (each key has a random weight along the direction
 * that the queries of its head share), so that attention is uneven and block selection has something to find.
 */
export function randomInputs(
  {batch = 1, heads = 1, keyValueHeads = heads, length, headDim}: Shape,
  seed: number,
): Inputs {
  const queryShape: Inputs['queryShape'] = [batch, heads, length, headDim];
  const keyShape: Inputs['keyShape'] = [batch, keyValueHeads, length, headDim];
  const values = (shape: number[], s: number) => tidy(() => randomNormal(shape, 0, 1, 'float32', s).dataSync<'float32'>());
  const query = values(queryShape, seed + 0.1).map((x, i) => x + (i % headDim === 0 ? 2 : 0));
  const key = values(keyShape, seed + 0.2).map((x, i) => (i % headDim === 0 ? 2 * x : x));
  return {query, key, value: values(keyShape, seed + 0.3), queryShape, keyShape};
}

/** The inputs as tensors of the active backend. */
export function tensors({query, key, value, queryShape, keyShape}: Inputs): [Tensor4D, Tensor4D, Tensor4D] {
  return [tensor4d(query, queryShape), tensor4d(key, keyShape), tensor4d(value, keyShape)];
}
