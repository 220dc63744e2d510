import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex} from '../../../src/internal';

const THREADS = 64;

/**
 * Keys and values of a prompt into a cache, int32 `[2, keyValueHeads, capacity, headDim / 2]`: the keys, then the values, two float16 a
 * word, low half first.
 */
export class StoreRowsProgram extends AttentionProgram<object> {
  /** @param key float32 `[1, keyValueHeads, rows, headDim]`, like `value`. */
  constructor(key: TensorInfo, value: TensorInfo, cacheShape: number[], firstRow: number) {
    const words = key.shape.reduce((product, size) => product * size, 1) / 2;
    super({
      name: 'StoreRows',
      inputs: {key, value},
      outputShape: cacheShape,
      outputType: 'int32',
      threads: THREADS,
      workgroups: Math.ceil((2 * words) / THREADS),
      uniforms: {firstRow: {type: 'i32', value: firstRow}},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation packs two values.
${workgroupIndex}
fn main(index : i32) {
  let rowWords = uniforms.outShape.w;
  let rows = uniforms.keyShape.z;
  let words = uniforms.outShape.y * rows * rowWords;
  let item = workgroupIndex() * ${THREADS} + i32(localIndex);
  if (item >= 2 * words) {
    return;
  }
  let isValue = item >= words;
  let word = item % words;
  var pair = vec2<f32>();
  if (isValue) {
    pair = vec2<f32>(value[2 * word], value[2 * word + 1]);
  } else {
    pair = vec2<f32>(key[2 * word], key[2 * word + 1]);
  }
  let head = word / (rows * rowWords) + select(0, uniforms.outShape.y, isValue);
  let inHead = word % (rows * rowWords);
  result[(head * uniforms.outShape.z + uniforms.firstRow) * rowWords + inHead] = bitcast<i32>(pack2x16float(pair));
}`;
  }
}

/** The first rows of the keys or of the values of a cache: float32 `[1, keyValueHeads, rows, headDim]`. */
export class ReadRowsProgram extends AttentionProgram<object> {
  constructor(cache: TensorInfo, rows: number, isValue: boolean) {
    const [, heads, , words] = cache.shape;
    super({
      name: 'ReadRows',
      inputs: {cache},
      outputShape: [1, heads, rows, 2 * words],
      threads: THREADS,
      workgroups: Math.ceil((heads * rows * words) / THREADS),
      uniforms: {firstHead: {type: 'i32', value: isValue ? heads : 0}},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation unpacks two values.
${workgroupIndex}
fn main(index : i32) {
  let rowWords = uniforms.cacheShape.w;
  let headWords = uniforms.outShape.z * rowWords;
  let word = workgroupIndex() * ${THREADS} + i32(localIndex);
  if (word >= uniforms.outShape.y * headWords) {
    return;
  }
  let head = uniforms.firstHead + word / headWords;
  let pair = unpack2x16float(bitcast<u32>(cache[head * uniforms.cacheShape.z * rowWords + word % headWords]));
  result[2 * word] = pair.x;
  result[2 * word + 1] = pair.y;
}`;
  }
}
