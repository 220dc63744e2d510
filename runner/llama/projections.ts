import * as tf from '@tensorflow/tfjs-core';
import {
  type ElementType,
  elementTypeOf,
  type Float16Tensor,
  gatedProduct,
  hasProducts,
  joinHeadsFloat16,
  normaliseFloat16,
  PRODUCT_VECTOR,
  product,
  productByHeads,
} from '../quantised/product_ops';
import {MOST_ROWS} from '../quantised/ops';
import {rmsNorm} from './kernels/rms_norm';
import {type Activation, gatedActivation} from './kernels/gated_activation';
import type {PreparedProjection, StoredProjection} from './prepared_weights';

/**
 * Rows that a projection multiplies: float32 `[rows, inputs]`, or where matrix units multiply them float16, two a word: int32
 * `[rows, inputs / 2]`. The dtype tells which, and what they are multiplied by follows them.
 */
export type Rows = tf.Tensor2D | Float16Tensor;

/** What projections multiply in, where the device can; sums are float32 in either. */
export type Precision = ElementType;

/** Whether so many rows are multiplied by products of ours, of unpacked matrices: few are multiplied by them as they are packed. */
const areUnpacked = (rows: number, projections: readonly PreparedProjection[]): projections is StoredProjection[] =>
  rows > MOST_ROWS &&
  projections.every(
    (projection) =>
      'stored' in projection &&
      projection.stored.every(({matrix, columns}) => matrix.unpack && columns % PRODUCT_VECTOR === 0),
  );

const takesFloat16 = (precision: Precision, rows: number, projections: readonly PreparedProjection[]): boolean =>
  precision === 'float16' && hasProducts('float16') && areUnpacked(rows, projections);

/** RMS norm of each row of `x` `[rows, inputs]`, for the projections that follow, with the norm's weight unless they bring it. */
export function normaliseFor(
  projections: readonly PreparedProjection[],
  x: tf.Tensor2D,
  epsilon: number,
  precision: Precision,
): Rows {
  const norm = 'norm' in projections[0] ? (projections[0].norm as tf.Tensor1D | undefined) : undefined;
  if (norm && takesFloat16(precision, x.shape[0], projections)) return normaliseFloat16(x, norm, epsilon);
  return rmsNorm(x, epsilon, {weight: norm});
}

/** `[1, heads, length, headDim]` → rows `[length, heads * headDim]`, for the projection that follows. */
export function joinHeadsFor(projection: PreparedProjection, x: tf.Tensor4D, precision: Precision): Rows {
  const [, heads, length, headDim] = x.shape;
  if (headDim % PRODUCT_VECTOR === 0 && takesFloat16(precision, length, [projection])) return joinHeadsFloat16(x);
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
    const {stored} = projection;
    if (areUnpacked(x.shape[0], [projection])) {
      const type = elementTypeOf(x);
      const products = stored.map(({matrix, bias, columns}) =>
        tf.tidy(() => productByHeads({x, weight: matrix.unpack!(type), bias}, columns)),
      );
      return joined(products) as tf.Tensor3D;
    }
    const products = stored.map(({matrix, bias, columns}) => {
      const rowsOfAll = tf.tidy(() => addTo(matrix.multiply(x), bias));
      const [rows, outputs] = rowsOfAll.shape;
      const count = outputs / columns;
      // The values of a single row, or of a single matrix, are in their order already.
      if (rows === 1 || count === 1) return tf.reshape(rowsOfAll, [count, rows, columns]);
      return tf.transpose(tf.reshape(rowsOfAll, [rows, count, columns]), [1, 0, 2]);
    });
    return joined(products) as tf.Tensor3D;
  });
}

/** `activation(gate) · up` of the products with two matrices: rows `[rows, outputs]`, of the type of `x`. */
export function projectGated(x: Rows, gateAndUp: PreparedProjection, activation: Activation): Rows {
  return tf.tidy(() => {
    if (!areUnpacked(x.shape[0], [gateAndUp])) return gatedActivation(projectEach(x, gateAndUp), activation);
    const {stored} = gateAndUp as StoredProjection;
    const [weight, up] = stored.map(({matrix}) => matrix.unpack!(elementTypeOf(x)));
    return gatedProduct({x, weight, up, bias: biasOf(gateAndUp as StoredProjection)}, activation);
  });
}

/** Words of a row of the largest tensor of `projectGated`: gates and ups, or what comes of them. */
export function gatedScratch(
  projections: readonly PreparedProjection[],
  rows: number,
  outputs: number,
  precision: Precision,
): number {
  if (takesFloat16(precision, rows, projections)) return outputs / 2;
  return areUnpacked(rows, [projections[0]]) ? outputs : 2 * outputs;
}

/**
 * `sum + x · weight + bias` for one matrix, `sum` float32 `[rows, outputs]`.
 *
 * @param norm of an RMS norm that the product goes through before it is added. Default: none.
 */
export function projectAndAdd(
  x: Rows,
  projection: PreparedProjection,
  sum: tf.Tensor2D,
  norm?: {weight: tf.Tensor; epsilon: number},
): tf.Tensor2D {
  if (norm === undefined) return project(x, projection, sum);
  return tf.tidy(() => rmsNorm(project(x, projection), norm.epsilon, {weight: norm.weight, residual: sum}));
}

function project(x: Rows, projection: PreparedProjection, sum?: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => {
    if ('weight' in projection) {
      const {weight, bias} = projection;
      // In one program where there is no bias, or no sum.
      const added = bias && sum ? tf.add(sum, bias) : (sum ?? bias);
      return tf.fused.matMul({a: x, b: weight, bias: added}) as tf.Tensor2D;
    }
    const [{matrix, bias}] = projection.stored;
    if (areUnpacked(x.shape[0], [projection])) {
      return product({x, weight: matrix.unpack!(elementTypeOf(x)), bias, residual: sum});
    }
    const products = addTo(matrix.multiply(x), bias);
    return sum ? tf.add(products, sum) : products;
  });
}

/** Of all the matrices of a projection, one after the other. */
function biasOf({stored}: StoredProjection): tf.Tensor | undefined {
  const biases = stored.flatMap(({bias}) => bias ?? []);
  return biases.length === 0 ? undefined : joined(biases);
}

const joined = (tensors: tf.Tensor[]): tf.Tensor => (tensors.length === 1 ? tensors[0] : tf.concat(tensors));

const addTo = (x: tf.Tensor2D, bias?: tf.Tensor): tf.Tensor2D => (bias ? tf.add(x, bias) : x);
