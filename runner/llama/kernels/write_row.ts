import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/**
 * Kernel: inputs `page`, float32 `[1, keyValueHeads, rows, headDim]`, `row`, float32 `[1, keyValueHeads, 1, headDim]`, and
 * `at`, float32 `[1, 1, rows, 1]`. One output of the shape of `page`.
 */
export const WriteRow = 'WriteRow';
export type WriteRowInputs = Record<'page' | 'row' | 'at', tf.TensorInfo>;

/**
 * Writes a row of keys or values into a page: `page + at · row`.
 *
 * @param page float32 `[1, keyValueHeads, rows, headDim]`, zeros where the row goes.
 * @param row float32 `[1, keyValueHeads, 1, headDim]`.
 * @param at float32 `[1, 1, rows, 1]`: 1 in the row that is written, else 0.
 * @returns a new page.
 */
export function writeRow(page: tf.Tensor4D, row: tf.Tensor4D, at: tf.Tensor4D): tf.Tensor4D {
  return hasKernel(WriteRow) ? runKernel(WriteRow, {page, row, at}, {}) : composedWriteRow(page, row, at);
}

/** {@link writeRow} in tfjs's own ops, for any backend. */
export function composedWriteRow(page: tf.Tensor4D, row: tf.Tensor4D, at: tf.Tensor4D): tf.Tensor4D {
  return tf.tidy(() => tf.add(page, tf.mul(at, row)));
}
