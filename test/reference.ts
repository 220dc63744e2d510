import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, gather, matMul, mul, softmax, tensor1d, tensor2d, tensor4d, tidy} from '@tensorflow/tfjs-core';

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
      const mask = Array.from({length: length * length}, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0));
      scores = add(scores, tensor2d(mask, [length, length])) as Tensor4D;
    }
    return matMul(softmax(scores), v) as Tensor4D;
  });
}

/** Repeats each head. By gather, because tfjs's tile reads back synchronously on WebGPU, which needs a canvas. */
export function repeatHeads(x: Tensor4D, times: number): Tensor4D {
  const heads = Array.from({length: x.shape[1] * times}, (_, head) => Math.floor(head / times));
  return gather(x, tensor1d(heads, 'int32'), 1);
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
  const random = gaussian(seed);
  const values = (shape: number[]) => Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, random);
  const query = values(queryShape).map((x, i) => x + (i % headDim === 0 ? 2 : 0));
  const key = values(keyShape).map((x, i) => (i % headDim === 0 ? 2 * x : x));
  return {query, key, value: values(keyShape), queryShape, keyShape};
}

/** Seeded normal deviates. tfjs has some too, but needs a backend that is ready, and test cases are made before that. */
function gaussian(seed: number): () => number {
  let state = seed;
  // mulberry32
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** The inputs as tensors of the active backend. */
export function tensors({query, key, value, queryShape, keyShape}: Inputs): [Tensor4D, Tensor4D, Tensor4D] {
  return [tensor4d(query, queryShape), tensor4d(key, keyShape), tensor4d(value, keyShape)];
}
