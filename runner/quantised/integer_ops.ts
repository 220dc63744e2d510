import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from '../llama/kernels/run_kernel';
import {GROUP, isQuantised} from '../gguf/block_values';
import type {PackedTensors} from './ops';
import type {PackedType} from './packed_type';

/**
 * Rows whose values are whole numbers of 8 bits, as llama.cpp multiplies them: each group of 32 with a scale of its own. int32 `[rows, groups,
 * 10]`, in this order: 8 words of a group, four values each, of all groups; then for each group, as float32, its scale, and its
 * scale times the sum of its whole numbers, which the offsets of a matrix are multiplied with.
 */
export type IntegerRows = tf.Tensor3D;

/** Words of a group of `IntegerRows`. */
export const INTEGER_GROUP_WORDS = GROUP / 4 + 2;

/** Kernel: input `x`, float32 `[rows, columns]`, columns a multiple of 64. Output `IntegerRows`. */
export const QuantiseRows = 'QuantiseRows';
/** Kernel: inputs `x`, `IntegerRows`, and a packed matrix of a quantised type. Output float32 `[rows, outputs]`. */
export const IntegerProduct = 'IntegerProduct';

/** Whether a matrix of so many inputs is multiplied with rows of 8 bits on the current backend. */
export const takesIntegerRows = (type: PackedType, inputs: number): boolean =>
  isQuantised(type) && inputs % (2 * GROUP) === 0 && hasKernel(IntegerProduct);

export const quantiseRows = (x: tf.Tensor2D): IntegerRows => runKernel(QuantiseRows, {x}, {});

/** `x · matrixᵀ`: products of whole numbers, summed up exactly within a group, in float32 over groups. */
export const integerProduct = (
  x: IntegerRows,
  {type, shape, quants, scales}: PackedTensors<tf.Tensor2D>,
): tf.Tensor2D => runKernel(IntegerProduct, {x, quants, scales}, {type, shape});
