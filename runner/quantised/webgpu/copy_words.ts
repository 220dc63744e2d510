import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {bufferOf, openEncoder} from '../../../src/internal';

/** Words of a tensor, and where they go. */
export interface WordCopy {
  source: tf.TensorInfo;
  from: number;
  to: number;
  words: number;
}

/**
 * A tensor of words of others, int32 unless said. tfjs's own concat, pad and slice bring int32 through float32 on WebGPU, which rounds what is past
 * 2²⁴, such as two float16 in a word.
 */
export function copyWords<T extends tf.Tensor>(
  shape: number[],
  copies: readonly WordCopy[],
  dtype: 'int32' | 'float32' = 'int32',
): T {
  const backend = tf.backend() as WebGPUBackend;
  const copied = backend.makeTensorInfo(shape, dtype);
  const target = bufferOf(backend, copied);
  const encoder = openEncoder(backend);
  for (const {source, from, to, words} of copies) {
    encoder.copyBufferToBuffer(bufferOf(backend, source), 4 * from, target, 4 * to, 4 * words);
  }
  // At once: the sources may be freed next, and tfjs would not know that they are in use.
  backend.submitQueue();
  return tf.engine().makeTensorFromTensorInfo(copied) as T;
}
