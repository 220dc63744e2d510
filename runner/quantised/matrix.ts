import * as tf from '@tensorflow/tfjs-core';
import type {ElementType} from './product_ops';

/** A weight of a projection, or an embedding, on the current backend. */
export interface Matrix {
  readonly shape: readonly [outputs: number, inputs: number];
  /** What it takes on the backend. */
  readonly bytes: number;
  /** `x · matrixᵀ`: float32 `[rows, inputs]` to `[rows, outputs]`. */
  multiply(x: tf.Tensor2D): tf.Tensor2D;
  /** Rows by their numbers: float32 `[ids, inputs]`. */
  rows(ids: readonly number[]): tf.Tensor2D;
  /** Its values as `product` takes them, for the caller to dispose. Without the method it is multiplied by `multiply` alone. */
  unpack?(type: ElementType): tf.Tensor2D;
  dispose(): void;
}

/** A matrix in float32, on any backend. */
export class DenseMatrix implements Matrix {
  readonly shape: readonly [outputs: number, inputs: number];
  readonly bytes: number;

  /** @param values float32 `[outputs, inputs]`, which the matrix takes over. */
  constructor(private readonly values: tf.Tensor2D) {
    this.shape = values.shape;
    this.bytes = 4 * values.size;
  }

  multiply(x: tf.Tensor2D): tf.Tensor2D {
    return tf.matMul(x, this.values, false, true);
  }

  rows(ids: readonly number[]): tf.Tensor2D {
    return tf.tidy(() => tf.gather(this.values, tf.tensor1d([...ids], 'int32')) as tf.Tensor2D);
  }

  dispose(): void {
    this.values.dispose();
  }
}
