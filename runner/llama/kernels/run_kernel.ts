import * as tf from '@tensorflow/tfjs-core';

/** Whether the current backend has a kernel of its own for an op of this folder. */
export function hasKernel(name: string): boolean {
  return tf.getKernel(name, tf.getBackend()) !== undefined;
}

/** Runs a kernel of the current backend; its outputs belong to the caller's `tf.tidy`. */
export function runKernel<T>(name: string, inputs: tf.NamedTensorMap, attrs: tf.NamedAttrMap): T {
  return tf.engine().runKernel(name, inputs, attrs) as T;
}
