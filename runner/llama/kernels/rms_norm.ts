import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/** What a norm's result is multiplied by, `[columns]`, and what is added to it, `[rows, columns]`; float32. */
export interface RMSNormOptions<T> {
  weight?: T;
  residual?: T;
}

/** Kernel: input `x`, float32 `[rows, columns]`, and those of `RMSNormOptions`. One output of the shape of `x`. */
export const RMSNorm = 'RMSNorm';
export type RMSNormInputs = {x: tf.TensorInfo} & RMSNormOptions<tf.TensorInfo>;
export interface RMSNormAttrs extends tf.NamedAttrMap {
  epsilon: number;
}

/**
 * Root mean square norm of each row: `x / sqrt(mean(x²) + epsilon) · weight + residual`.
 *
 * @param x float32 `[rows, columns]`.
 * @param options Default: weights of 1, and nothing is added.
 * @returns float32 `[rows, columns]`.
 */
export function rmsNorm(x: tf.Tensor2D, epsilon: number, options: RMSNormOptions<tf.Tensor> = {}): tf.Tensor2D {
  const {weight, residual} = options;
  // tfjs takes an input that is undefined for one that is there.
  const inputs = {x, ...(weight && {weight}), ...(residual && {residual})};
  return hasKernel(RMSNorm) ? runKernel(RMSNorm, inputs, {epsilon}) : composedRMSNorm(x, epsilon, options);
}

/** {@link rmsNorm} in tfjs's own ops, for any backend. */
export function composedRMSNorm(
  x: tf.Tensor2D,
  epsilon: number,
  {weight, residual}: RMSNormOptions<tf.Tensor> = {},
): tf.Tensor2D {
  return tf.tidy(() => {
    const normed = tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), epsilon)));
    const weighted = weight ? tf.mul(normed, weight) : normed;
    return residual ? tf.add(weighted, residual) : weighted;
  }) as tf.Tensor2D;
}
