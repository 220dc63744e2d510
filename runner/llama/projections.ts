import * as tf from '@tensorflow/tfjs-core';
import {
  FLOAT16_VECTOR,
  type Float16Tensor,
  joinHeadsFloat16,
  normaliseFloat16,
  productByHeadsFloat16,
  productFloat16,
  swigluProductFloat16,
} from '../quantised/float16_ops';
import {MOST_ROWS} from '../quantised/ops';
import {rmsNorm} from './kernels/rms_norm';
import {swiGLU} from './kernels/swiglu';
import type {PreparedProjection, StoredProjection} from './prepared_weights';

/**
 * Rows that a projection multiplies: float32 `[rows, inputs]`, or where matrix units multiply them float16, two a word: int32
 * `[rows, inputs / 2]`. The dtype tells which, and what they are multiplied by follows them.
 */
export type Rows = tf.Tensor2D | Float16Tensor;

/** What projections multiply in, where the device can; sums are float32 in either. */
export type Precision = 'float32' | 'float16';

const isFloat16 = (x: Rows): boolean => x.dtype === 'int32';

/** Whether so many rows go through projections as float16: few are multiplied in float32 at no cost. */
function takesFloat16(precision: Precision, rows: number, projections: readonly PreparedProjection[]): boolean {
  return (
    precision === 'float16' &&
    rows > MOST_ROWS &&
    projections.every(
      (projection) =>
        'stored' in projection &&
        projection.stored.every(({matrix, columns}) => matrix.float16 && columns % FLOAT16_VECTOR === 0),
    )
  );
}

/**
 * RMS norm of each row of `x` `[rows, inputs]`, for the projections that follow. The norm's weight is in the rows of float16; float32
 * rows are without it, since float32 projections bring it.
 */
export function normaliseFor(
  projections: readonly PreparedProjection[],
  x: tf.Tensor2D,
  epsilon: number,
  precision: Precision,
): Rows {
  if (!takesFloat16(precision, x.shape[0], projections)) return rmsNorm(x, epsilon);
  const {norm} = projections[0] as StoredProjection;
  return normaliseFloat16(x, norm as tf.Tensor1D, epsilon);
}

/** `[1, heads, length, headDim]` → rows `[length, heads * headDim]`, for the projection that follows. */
export function joinHeadsFor(projection: PreparedProjection, x: tf.Tensor4D, precision: Precision): Rows {
  const [, heads, length, headDim] = x.shape;
  if (headDim % FLOAT16_VECTOR === 0 && takesFloat16(precision, length, [projection])) return joinHeadsFloat16(x);
  return tf.tidy(() => {
    // The values of a single row are in their order already.
    const rows = length === 1 ? x : tf.transpose(x, [0, 2, 1, 3]);
    return tf.reshape(rows, [length, heads * headDim]);
  });
}

/** `x · weight + bias` for each of several matrices: float32 `[count, rows, outputs]`. */
export function projectEach(x: Rows, projection: PreparedProjection): tf.Tensor3D {
  return tf.tidy(() => {
    if ('weight' in projection) {
      const {weight, bias} = projection;
      return tf.fused.matMul({a: tf.reshape(x, [1, ...x.shape]), b: weight, bias}) as tf.Tensor3D;
    }
    const {stored, norm} = projection;
    if (isFloat16(x)) {
      const products = stored.map(({matrix, bias, columns}) =>
        tf.tidy(() => productByHeadsFloat16({x, weight: matrix.float16!(), bias}, columns)),
      );
      return joined(products) as tf.Tensor3D;
    }
    const input = norm ? tf.mul(x, norm) : x;
    const products = stored.map(({matrix, bias, columns}) => {
      const product = tf.tidy(() => addTo(matrix.multiply(input as tf.Tensor2D), bias));
      const [rows, outputs] = product.shape;
      const count = outputs / columns;
      // The values of a single row, or of a single matrix, are in their order already.
      if (rows === 1 || count === 1) return tf.reshape(product, [count, rows, columns]);
      return tf.transpose(tf.reshape(product, [rows, count, columns]), [1, 0, 2]);
    });
    return joined(products) as tf.Tensor3D;
  });
}

/** SwiGLU of the products with two matrices: rows `[rows, outputs]`, of float16 if `x` is. */
export function projectGated(x: Rows, gateAndUp: PreparedProjection): Rows {
  if (!isFloat16(x)) return tf.tidy(() => swiGLU(projectEach(x, gateAndUp)));
  return tf.tidy(() => {
    const {stored} = gateAndUp as StoredProjection;
    const [weight, up] = stored.map(({matrix}) => matrix.float16!());
    return swigluProductFloat16({x, weight, up, bias: biasOf(gateAndUp as StoredProjection)});
  });
}

/** Words of a row of the largest tensor of `projectGated`: gates and ups in float32, or what comes of them in float16. */
export const gatedScratch = (
  projections: readonly PreparedProjection[],
  rows: number,
  outputs: number,
  precision: Precision,
): number => (takesFloat16(precision, rows, projections) ? outputs / 2 : 2 * outputs);

/** `sum + x · weight + bias` for one matrix, `sum` float32 `[rows, outputs]`. */
export function projectAndAdd(x: Rows, projection: PreparedProjection, sum: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => {
    if ('weight' in projection) {
      const {weight, bias} = projection;
      // In one program where there is no bias.
      return tf.fused.matMul({a: x, b: weight, bias: bias ? tf.add(sum, bias) : sum}) as tf.Tensor2D;
    }
    const [{matrix, bias}] = projection.stored;
    if (isFloat16(x)) return productFloat16({x, weight: matrix.float16!(), bias, residual: sum});
    return tf.add(addTo(matrix.multiply(x), bias), sum) as tf.Tensor2D;
  });
}

/** Of all the matrices of a projection, one after the other. */
function biasOf({stored}: StoredProjection): tf.Tensor | undefined {
  const biases = stored.flatMap(({bias}) => bias ?? []);
  return biases.length === 0 ? undefined : joined(biases);
}

const joined = (tensors: tf.Tensor[]): tf.Tensor => (tensors.length === 1 ? tensors[0] : tf.concat(tensors));

const addTo = (x: tf.Tensor2D, bias?: tf.Tensor): tf.Tensor2D => (bias ? tf.add(x, bias) : x);
