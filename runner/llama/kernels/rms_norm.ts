import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/** Kernel: input `x`, float32 `[rows, columns]`. One output of the same shape. */
export const RMSNorm = 'RMSNorm';
export type RMSNormInputs = Record<'x', tf.TensorInfo>;
export interface RMSNormAttrs extends tf.NamedAttrMap {
  epsilon: number;
}

/**
 * Root mean square norm of each row, without a weight: `x / sqrt(mean(x²) + epsilon)`.
 *
 * @param x float32 `[rows, columns]`.
 * @returns float32 `[rows, columns]`.
 */
export function rmsNorm(x: tf.Tensor2D, epsilon: number): tf.Tensor2D {
  return hasKernel(RMSNorm) ? runKernel(RMSNorm, {x}, {epsilon}) : composedRMSNorm(x, epsilon);
}

/** {@link rmsNorm} in tfjs's own ops, for any backend. */
export function composedRMSNorm(x: tf.Tensor2D, epsilon: number): tf.Tensor2D {
  return tf.tidy(() => tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), epsilon))));
}
