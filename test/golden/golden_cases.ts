import type {Tensor4D} from '@tensorflow/tfjs-core';
import {tensor4d} from '@tensorflow/tfjs-core';
import {paperOptions} from '../../src/index';
import {fixture} from '../setup/environment';

/** One case of `test/golden`: inputs, and what the authors' code made of them. */
export interface GoldenCase {
  name: string;
  options: {
    blockSize: number;
    keyBlockSize: number;
    segmentSize: number;
    threshold: number;
    estimate: 'sampled' | 'pooled';
  };
  shape: {batch: number; heads: number; length: number; headDim: number};
  query: () => Tensor4D;
  key: () => Tensor4D;
  value: () => Tensor4D;
  output: Float32Array;
  /** Absent where the authors' code runs exact attention. */
  plan?: {keyIndices: Int32Array; blockMask: Uint8Array; density: number};
}

interface ArrayEntry {
  offset: number;
  shape: number[];
  dtype: 'float16' | 'float32' | 'int32' | 'uint8';
}

/* eslint-disable @typescript-eslint/no-explicit-any -- cases.json is read as it is. */
export async function goldenCases(): Promise<GoldenCase[]> {
  const json = JSON.parse(new TextDecoder().decode(await fixture('test/golden/cases.json')));
  const bytes = await fixture('test/golden/cases.bin');
  return json.cases.map((c: any): GoldenCase => {
    const input = (entry: ArrayEntry) => () =>
      tensor4d(readArray(bytes, entry) as Float32Array, entry.shape as [number, number, number, number]);
    const {batch, heads, length, headDim, blockSize, segmentSize, threshold} = c;
    return {
      name: `${c.source} ${batch}x${heads}/${c.kvHeads}x${length}x${headDim} B${blockSize} S${segmentSize} t${threshold}`,
      options: {...paperOptions, blockSize, keyBlockSize: blockSize, segmentSize, threshold},
      shape: {batch, heads, length, headDim},
      query: input(c.query),
      key: input(c.key),
      value: input(c.value),
      output: readArray(bytes, c.output) as Float32Array,
      plan: c.keyIndices && {
        keyIndices: readArray(bytes, c.keyIndices) as Int32Array,
        blockMask: readArray(bytes, c.blockMask) as Uint8Array,
        density: c.density,
      },
    };
  });
}

function readArray(bytes: ArrayBuffer, {offset, shape, dtype}: ArrayEntry) {
  const size = shape.reduce((a, b) => a * b, 1);
  switch (dtype) {
    case 'float16':
      return Float32Array.from(new Uint16Array(bytes, offset, size), float16ToNumber);
    case 'float32':
      return new Float32Array(bytes, offset, size);
    case 'int32':
      return new Int32Array(bytes, offset, size);
    case 'uint8':
      return new Uint8Array(bytes, offset, size);
  }
}

function float16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) {
    return sign * fraction * 2 ** -24;
  }
  return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Σ|actual − expected| / Σ|expected|. */
export function relativeL1(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new Error(`relativeL1: ${actual.length} values against ${expected.length}`);
  }
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; ++i) {
    difference += Math.abs(actual[i] - expected[i]);
    size += Math.abs(expected[i]);
  }
  return difference / size;
}
