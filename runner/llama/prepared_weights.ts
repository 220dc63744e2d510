import * as tf from '@tensorflow/tfjs-core';
import type {LlamaConfig} from './config';
import {DenseMatrix, type Matrix} from '../quantised/matrix';
import {PackedMatrix} from '../quantised/packed_matrix';
import {largestTensor} from './tensor_limit';
import type {LayerWeights, Projection} from './layer_weights';

/**
 * A projection as it is multiplied: weight `[inputs, outputs]`, bias `[outputs]`, or several such matrices of the same
 * input: weight `[count, inputs, outputs]`, bias `[count, 1, outputs]`. One that follows an RMS norm has the norm's weight in it.
 */
export type DenseProjection = {weight: tf.Tensor; bias?: tf.Tensor};

/** One whose matrices stay as they are stored, each of them cut into so many outputs a matrix; and the weight of the norm before. */
export type StoredProjection = {
  stored: Array<{matrix: Matrix; bias?: tf.Tensor; columns: number}>;
  norm?: tf.Tensor;
};

export type PreparedProjection = DenseProjection | StoredProjection;

/** A layer's weights. */
export type PreparedLayer = {
  /** A matrix for each head of the queries, then of the keys: what gets rotated. */
  queryAndKey: PreparedProjection;
  /** `[heads + keyValueHeads, 1, headDim]`: weights of the norms of queries and keys, where the architecture has them. */
  queryAndKeyNorm?: tf.Tensor;
  /** A matrix for each head. */
  value: PreparedProjection;
  output: PreparedProjection;
  /** `[hiddenSize]`: weights of the norms of what attention and the MLP add, where the architecture has them. */
  attentionPostNorm?: tf.Tensor;
  mlpPostNorm?: tf.Tensor;
  /** Two matrices. */
  gateAndUp: PreparedProjection;
  down: PreparedProjection;
};

export type PreparedWeights = {
  /** `[vocabSize, hiddenSize]` */
  embedding: Matrix;
  layers: PreparedLayer[];
  /** `[hiddenSize]` */
  norm: tf.Tensor;
  /** `[vocabSize, hiddenSize]`: the embedding itself when the head is tied. */
  head: Matrix;
};

/** Frees the tensors of weights, or of layers: to tfjs a matrix is a container of its own like any object. */
export function disposeWeights(weights: PreparedWeights | PreparedLayer[]): void {
  tf.dispose(weights as unknown as tf.TensorContainer);
}

/**
 * Brings the tensors of one layer into the form that the model multiplies with, once, and disposes them:
 *
 * - transposed, because tfjs's WebGPU product reads four values at a time only then;
 * - queries, keys and values by heads, so that the products come out by heads and nothing is transposed before attention;
 * - those whose products go into one program joined, so that one program computes them;
 * - the weight of each RMS norm multiplied into the projections that follow it.
 */
export function prepareLayer(
  {heads, keyValueHeads, headDim}: LlamaConfig,
  stored: LayerWeights<tf.Tensor>,
): PreparedLayer {
  const {attentionNorm, query, key, value, queryNorm, keyNorm, output, mlpNorm, gate, up, down} = stored;
  const {attentionPostNorm, mlpPostNorm} = stored;
  const prepared = tf.tidy(() => ({
    queryAndKey: join(split(query, headDim, attentionNorm), split(key, headDim, attentionNorm)),
    ...(queryNorm &&
      keyNorm && {queryAndKeyNorm: tf.concat([forHeads(queryNorm, heads), forHeads(keyNorm, keyValueHeads)])}),
    value: split(value, headDim, attentionNorm),
    output: transposed(output),
    ...(attentionPostNorm && {attentionPostNorm: tf.clone(attentionPostNorm)}),
    ...(mlpPostNorm && {mlpPostNorm: tf.clone(mlpPostNorm)}),
    gateAndUp: join(split(gate, gate.weight.shape[0], mlpNorm), split(up, up.weight.shape[0], mlpNorm)),
    down: transposed(down),
  }));
  tf.dispose(stored);
  return prepared;
}

function transposed({weight, bias}: Projection<tf.Tensor>): DenseProjection {
  return {weight: tf.transpose(weight), ...(bias && {bias: tf.clone(bias)})};
}

/** Matrices of `columns` outputs each, with the weight of the norm before them. */
function split({weight, bias}: Projection<tf.Tensor>, columns: number, norm: tf.Tensor): DenseProjection {
  const [outputs, inputs] = weight.shape;
  const matrices = tf.reshape(weight, [outputs / columns, columns, inputs]);
  return {
    weight: tf.mul(tf.transpose(matrices, [0, 2, 1]), tf.expandDims(norm, 1)),
    ...(bias && {bias: tf.reshape(bias, [outputs / columns, 1, columns])}),
  };
}

/** `[headDim]` → `[heads, 1, headDim]` */
function forHeads(norm: tf.Tensor, heads: number): tf.Tensor {
  return tf.tile(tf.reshape(norm, [1, 1, norm.size]), [heads, 1, 1]);
}

function join(a: DenseProjection, b: DenseProjection): DenseProjection {
  return {
    weight: tf.concat([a.weight, b.weight]),
    ...(a.bias && b.bias && {bias: tf.concat([a.bias, b.bias])}),
  };
}

/** A weight as it is uploaded: a matrix that stays packed, or a tensor. */
export type Stored = Matrix | tf.Tensor;

/** A weight `[outputs, inputs]` as a matrix, which takes it over. */
export const matrixOf = (weight: Stored): Matrix =>
  weight instanceof tf.Tensor ? new DenseMatrix(weight as tf.Tensor2D) : weight;

/** Matrices of the same columns as one, where they can be one. */
function joinStored(stored: StoredProjection['stored']): StoredProjection['stored'] {
  const matrices = stored.map(({matrix}) => matrix).filter((matrix) => matrix instanceof PackedMatrix);
  const biases = stored.flatMap(({bias}) => bias ?? []);
  if (matrices.length < stored.length || biases.length % stored.length !== 0) return stored;
  const matrix = PackedMatrix.join(matrices, largestTensor().bytes);
  if (matrix === undefined) return stored;
  if (biases.length === 0) return [{matrix, columns: stored[0].columns}];
  const bias = tf.concat(biases);
  tf.dispose(biases);
  return [{matrix, bias, columns: stored[0].columns}];
}

/** The same of matrices that stay as they are stored: queries and keys are joined where their types are the same. */
export function prepareStoredLayer(
  {heads, keyValueHeads, headDim, intermediateSize}: LlamaConfig,
  weights: LayerWeights<Stored>,
): PreparedLayer {
  const {attentionNorm, query, key, value, queryNorm, keyNorm, output, mlpNorm, gate, up, down} = weights;
  const {attentionPostNorm, mlpPostNorm} = weights as LayerWeights<tf.Tensor>;
  const part = ({weight, bias}: Projection<Stored>, columns: number) => {
    return {matrix: matrixOf(weight), ...(bias && {bias: bias as tf.Tensor}), columns};
  };
  const [norm, innerNorm] = [attentionNorm, mlpNorm] as tf.Tensor[];
  const whole = (projection: Projection<Stored>) => ({
    stored: [part(projection, projection.weight.shape[0])],
  });
  const headNorms = () =>
    tf.tidy(() => {
      const joined = tf.concat([
        forHeads(queryNorm as tf.Tensor, heads),
        forHeads(keyNorm as tf.Tensor, keyValueHeads),
      ]);
      tf.dispose([queryNorm as tf.Tensor, keyNorm as tf.Tensor]);
      return joined;
    });
  return {
    queryAndKey: {stored: joinStored([part(query, headDim), part(key, headDim)]), norm},
    ...(queryNorm && keyNorm && {queryAndKeyNorm: headNorms()}),
    value: {stored: [part(value, headDim)], norm},
    output: whole(output),
    ...(attentionPostNorm && {attentionPostNorm}),
    ...(mlpPostNorm && {mlpPostNorm}),
    gateAndUp: {stored: [part(gate, intermediateSize), part(up, intermediateSize)], norm: innerNorm},
    down: whole(down),
  };
}
