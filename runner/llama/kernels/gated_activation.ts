import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/** Of a gate: SiLU, `x · sigmoid(x)` (SwiGLU), or GELU by its tanh, transformers' `gelu_pytorch_tanh` (GeGLU). */
export type Activation = 'silu' | 'gelu';

/** GELU by its tanh is `x · sigmoid(x · (GELU_LINEAR + GELU_CUBIC · x²))`. */
export const GELU_LINEAR = 2 * Math.sqrt(2 / Math.PI);
export const GELU_CUBIC = 0.044715 * GELU_LINEAR;

/** Kernel: input `gateAndUp`, float32 `[2, rows, columns]`. One output, float32 `[rows, columns]`. */
export const GatedActivation = 'GatedActivation';
export type GatedActivationInputs = Record<'gateAndUp', tf.TensorInfo>;
export interface GatedActivationAttrs extends tf.NamedAttrMap {
  activation: Activation;
}

/**
 * The gate of the MLP: `activation(gate) · up`.
 *
 * @param gateAndUp float32 `[2, rows, columns]`: the gate, then what it lets through.
 * @returns float32 `[rows, columns]`.
 */
export function gatedActivation(gateAndUp: tf.Tensor3D, activation: Activation): tf.Tensor2D {
  return hasKernel(GatedActivation)
    ? runKernel(GatedActivation, {gateAndUp}, {activation})
    : composedGatedActivation(gateAndUp, activation);
}

/** {@link gatedActivation} in tfjs's own ops, for any backend. */
export function composedGatedActivation(gateAndUp: tf.Tensor3D, activation: Activation): tf.Tensor2D {
  return tf.tidy(() => {
    const [gate, up] = tf.unstack(gateAndUp) as tf.Tensor2D[];
    const argument =
      activation === 'silu' ? gate : tf.mul(gate, tf.add(tf.mul(tf.square(gate), GELU_CUBIC), GELU_LINEAR));
    return tf.mul(tf.mul(gate, tf.sigmoid(argument)), up);
  });
}
