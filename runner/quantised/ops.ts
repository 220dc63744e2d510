import type * as tf from '@tensorflow/tfjs-core';
import {runKernel} from '../llama/kernels/run_kernel';
import type {PackedType} from './packed_type';

/** A packed matrix, or rows of one, on the backend. */
export interface PackedTensors<T> {
  type: PackedType;
  /** `[outputs, inputs]`; inputs are a multiple of a group. */
  shape: [outputs: number, inputs: number];
  /** int32 `[outputs, words of a row]`. */
  quants: T;
  /** int32 `[outputs, words of a row]`; of plain types `[1, 1]`. */
  scales: T;
}

/** Most rows of x in `PackedProduct`: an invocation keeps a sum of each in registers. */
export const MOST_ROWS = 8;

/** What names a packed matrix in the attributes of a kernel, beside its tensors. */
export interface PackedAttrs extends tf.NamedAttrMap {
  type: PackedType;
  shape: [outputs: number, inputs: number];
}
export type PackedInputs = Record<'quants' | 'scales', tf.TensorInfo>;

/** Kernel: inputs `x`, float32 `[rows, inputs]`, and a packed matrix. Output float32 `[rows, outputs]`. */
export const PackedProduct = 'PackedProduct';
/** Kernel: inputs of a packed matrix. Output float32 `[inputs, outputs]`. */
export const UnpackTransposed = 'UnpackTransposed';
/** Kernel: inputs of a packed matrix, and `ids`, int32 `[count]`. Output float32 `[count, inputs]`. */
export const UnpackRows = 'UnpackRows';

type Packed = PackedTensors<tf.Tensor2D>;

const run = <T>(kernel: string, {type, shape, quants, scales}: Packed, more: tf.NamedTensorMap = {}): T =>
  runKernel<T>(kernel, {quants, scales, ...more}, {type, shape});

/** `x · matrixᵀ`, for at most `MOST_ROWS` rows of x. */
export const packedProduct = (x: tf.Tensor2D, matrix: Packed): tf.Tensor2D => run(PackedProduct, matrix, {x});

export const unpackTransposed = (matrix: Packed): tf.Tensor2D => run(UnpackTransposed, matrix);

export const unpackRows = (matrix: Packed, ids: tf.Tensor1D): tf.Tensor2D => run(UnpackRows, matrix, {ids});
