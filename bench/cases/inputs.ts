import {tensor4d} from '@tensorflow/tfjs-core';
import type {Inputs} from '../captured_attention';
import {randomFloats} from '../random_data';
import type {HeadShape, Values} from '../shapes';

/** Random inputs, mean 0 and variance 1; ONNX Runtime gets values of the same seeds. */
export function randomInputs(shape: HeadShape, length: number, seed: number): Inputs {
  const {heads, keyValueHeads, headDim} = shape;
  const values = (count: number, offset: number) => randomFloats(count * length * headDim, seed + offset);
  return uploadInputs(shape, length, {
    query: values(heads, 0),
    key: values(keyValueHeads, 1),
    value: values(keyValueHeads, 2),
  });
}

export function uploadInputs({heads, keyValueHeads, headDim}: HeadShape, length: number, values: Values): Inputs {
  const keyShape: [number, number, number, number] = [1, keyValueHeads, length, headDim];
  return {
    query: tensor4d(values.query, [1, heads, length, headDim]),
    key: tensor4d(values.key, keyShape),
    value: tensor4d(values.value, keyShape),
  };
}

export function disposeInputs({query, key, value}: Inputs): void {
  [query, key, value].forEach((x) => x.dispose());
}
