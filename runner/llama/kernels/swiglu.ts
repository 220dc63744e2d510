import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/** Kernel: input `gateAndUp`, float32 `[2, rows, columns]`. One output, float32 `[rows, columns]`. */
export const SwiGLU = 'SwiGLU';
export type SwiGLUInputs = Record<'gateAndUp', tf.TensorInfo>;

/**
 * SwiGLU, the gate of the MLP: `gate · sigmoid(gate) · up`.
 *
 * @param gateAndUp float32 `[2, rows, columns]`: the gate, then what it lets through.
 * @returns float32 `[rows, columns]`.
 */
export function swiGLU(gateAndUp: tf.Tensor3D): tf.Tensor2D {
  return hasKernel(SwiGLU) ? runKernel(SwiGLU, {gateAndUp}, {}) : composedSwiGLU(gateAndUp);
}

/** {@link swiGLU} in tfjs's own ops, for any backend. */
export function composedSwiGLU(gateAndUp: tf.Tensor3D): tf.Tensor2D {
  return tf.tidy(() => {
    const [gate, up] = tf.unstack(gateAndUp) as tf.Tensor2D[];
    return tf.mul(tf.mul(gate, tf.sigmoid(gate)), up);
  });
}
