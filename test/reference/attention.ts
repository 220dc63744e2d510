import type {Tensor4D} from '@tensorflow/tfjs-core';
import {add, gather, matMul, mul, softmax, tensor1d, tensor4d, tidy} from '@tensorflow/tfjs-core';

export interface ReferenceOptions {
  causal?: boolean;
  scale?: number;
  /** Default: queries end with the keys, or start with them where they are more. */
  queryOffset?: number;
  keyLengths?: number[];
  mask?: MaskValues;
}

/** A mask whose values are at hand: `[batch, heads, queryLength, keyLength]`, dimensions of 1 broadcast. */
export interface MaskValues {
  values: ArrayLike<number>;
  shape: [number, number, number, number];
  dtype: 'bool' | 'float32';
}

export const maskTensor = ({values, shape, dtype}: MaskValues): Tensor4D => tensor4d(Array.from(values), shape, dtype);

/**
 * Attention as tfjs models write it: matMul, mask, softmax, matMul, with keys and values repeated for grouped heads; and
 * zeros in rows that see nothing.
 */
export function composedAttention(
  query: Tensor4D,
  key: Tensor4D,
  value: Tensor4D,
  {scale = 1 / Math.sqrt(query.shape[3]), ...options}: ReferenceOptions = {},
): Tensor4D {
  return tidy(() => {
    const [k, v] = [key, value].map((x) => repeatHeads(x, query.shape[1] / x.shape[1]));
    const [batch, heads, queryLength] = query.shape;
    const shape: MaskValues['shape'] = [batch, heads, queryLength, key.shape[2]];
    const bias = scoreBias(shape, options);
    const scores = add(mul(matMul(query, k, false, true), scale), tensor4d(bias.values, shape));
    const attended = matMul(softmax(scores as Tensor4D), v) as Tensor4D;
    return mul(attended, tensor4d(bias.sees, [batch, heads, queryLength, 1])) as Tensor4D;
  });
}

/** What is added to each score, −1e9 where the key is hidden; and for each row 1 if it sees a key, else 0. */
function scoreBias(
  [batch, heads, queryLength, keyLength]: MaskValues['shape'],
  {causal = true, queryOffset = Math.max(0, keyLength - queryLength), keyLengths, mask}: ReferenceOptions,
): {values: Float32Array; sees: Float32Array} {
  const values = new Float32Array(batch * heads * queryLength * keyLength);
  const sees = new Float32Array(batch * heads * queryLength);
  for (let i = 0; i < values.length; ++i) {
    const key = i % keyLength;
    const row = Math.floor(i / keyLength);
    const query = row % queryLength;
    const head = Math.floor(row / queryLength) % heads;
    const entry = Math.floor(row / queryLength / heads);
    let bias = 0;
    if (mask) {
      const at = [entry, head, query, key].reduce(
        (index, x, axis) => index * mask.shape[axis] + (mask.shape[axis] === 1 ? 0 : x),
        0,
      );
      bias = mask.dtype === 'bool' ? (mask.values[at] ? 0 : -Infinity) : mask.values[at];
    }
    const isSeen =
      bias !== -Infinity && !(causal && key > queryOffset + query) && key < (keyLengths?.[entry] ?? Infinity);
    values[i] = isSeen ? bias : -1e9;
    sees[row] ||= isSeen ? 1 : 0;
  }
  return {values, sees};
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
  /** Of the query, and by default of the keys. */
  length: number;
  headDim: number;
}

/** Shapes in which keys and values differ from the query. */
export interface RectangularShape extends Shape {
  keyLength?: number;
  valueDim?: number;
}

export interface Inputs {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
  queryShape: [number, number, number, number];
  keyShape: [number, number, number, number];
  valueShape: [number, number, number, number];
}

/**
 * Random inputs, the same on every backend: a few keys in many matter (each key has a random weight along the direction
 * that the queries of its head share), so that attention is uneven and block selection has something to find.
 */
export function randomInputs(
  {
    batch = 1,
    heads = 1,
    keyValueHeads = heads,
    length,
    headDim,
    keyLength = length,
    valueDim = headDim,
  }: RectangularShape,
  seed: number,
): Inputs {
  const queryShape: Inputs['queryShape'] = [batch, heads, length, headDim];
  const keyShape: Inputs['keyShape'] = [batch, keyValueHeads, keyLength, headDim];
  const valueShape: Inputs['valueShape'] = [batch, keyValueHeads, keyLength, valueDim];
  const random = gaussian(seed);
  const values = (shape: number[]) => Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, random);
  const query = values(queryShape).map((x, i) => x + (i % headDim === 0 ? 2 : 0));
  const key = values(keyShape).map((x, i) => (i % headDim === 0 ? 2 * x : x));
  return {query, key, value: values(valueShape), queryShape, keyShape, valueShape};
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
export function tensors({query, key, value, queryShape, keyShape, valueShape}: Inputs): [Tensor4D, Tensor4D, Tensor4D] {
  return [tensor4d(query, queryShape), tensor4d(key, keyShape), tensor4d(value, valueShape)];
}
