import * as tf from '@tensorflow/tfjs-core';
import type {LlamaConfig} from './config';
import type {LayerWeights, Projection} from './layer_weights';

/**
 * A projection as it is multiplied: weight `[inputs, outputs]`, bias `[outputs]`, or several such matrices of the same
 * input: weight `[count, inputs, outputs]`, bias `[count, 1, outputs]`.
 */
export type PreparedProjection = {weight: tf.Tensor; bias?: tf.Tensor};

/** A layer's weights. Those that follow an RMS norm have the norm's weight in them. */
export type PreparedLayer = {
  /** A matrix for each head of the queries, then of the keys: what gets rotated. */
  queryAndKey: PreparedProjection;
  /** `[heads + keyValueHeads, 1, headDim]`: weights of the norms of queries and keys, where the architecture has them. */
  queryAndKeyNorm?: tf.Tensor;
  /** A matrix for each head. */
  value: PreparedProjection;
  output: PreparedProjection;
  /** Two matrices. */
  gateAndUp: PreparedProjection;
  down: PreparedProjection;
};

export type PreparedWeights = {
  /** `[vocabSize, hiddenSize]` */
  embedding: tf.Tensor;
  layers: PreparedLayer[];
  /** `[hiddenSize]` */
  norm: tf.Tensor;
  /** `[vocabSize, hiddenSize]`: the embedding itself when the head is tied. */
  head: tf.Tensor;
};

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
  const prepared = tf.tidy(() => ({
    queryAndKey: join(split(query, headDim, attentionNorm), split(key, headDim, attentionNorm)),
    ...(queryNorm &&
      keyNorm && {queryAndKeyNorm: tf.concat([forHeads(queryNorm, heads), forHeads(keyNorm, keyValueHeads)])}),
    value: split(value, headDim, attentionNorm),
    output: transposed(output),
    gateAndUp: join(split(gate, gate.weight.shape[0], mlpNorm), split(up, up.weight.shape[0], mlpNorm)),
    down: transposed(down),
  }));
  tf.dispose(stored);
  return prepared;
}

function transposed({weight, bias}: Projection<tf.Tensor>): PreparedProjection {
  return {weight: tf.transpose(weight), ...(bias && {bias: tf.clone(bias)})};
}

/** Matrices of `columns` outputs each, with the weight of the norm before them. */
function split({weight, bias}: Projection<tf.Tensor>, columns: number, norm: tf.Tensor): PreparedProjection {
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

function join(a: PreparedProjection, b: PreparedProjection): PreparedProjection {
  return {
    weight: tf.concat([a.weight, b.weight]),
    ...(a.bias && b.bias && {bias: tf.concat([a.bias, b.bias])}),
  };
}

/** `x · weight + bias` of `x` `[rows, inputs]` for each of several matrices: `[count, rows, outputs]`. */
export function projectEach(x: tf.Tensor2D, {weight, bias}: PreparedProjection): tf.Tensor3D {
  return tf.tidy(() => tf.fused.matMul({a: tf.reshape(x, [1, ...x.shape]), b: weight, bias}) as tf.Tensor3D);
}

/** `sum + x · weight + bias` for one matrix, `sum` `[rows, outputs]`: in one program where there is no bias. */
export function projectAndAdd(x: tf.Tensor2D, {weight, bias}: PreparedProjection, sum: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => tf.fused.matMul({a: x, b: weight, bias: bias ? tf.add(sum, bias) : sum}) as tf.Tensor2D);
}
