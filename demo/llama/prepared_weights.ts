import * as tf from '@tensorflow/tfjs-core';
import type {LlamaConfig} from './config';
import type {LayerWeights, Projection} from './weights';

/**
 * A projection as it is multiplied: weight `[inputs, outputs]`, bias `[outputs]`, or one such matrix for each head,
 * weight `[heads, inputs, headDim]`, bias `[heads, 1, headDim]`.
 */
export type PreparedProjection = {weight: tf.Tensor; bias?: tf.Tensor};

/** A layer's weights. Those that follow an RMS norm have the norm's weight in them. */
export type PreparedLayer = {
  /** Heads of the queries, then of the keys: what gets rotated. */
  queryAndKey: PreparedProjection;
  value: PreparedProjection;
  output: PreparedProjection;
  gate: PreparedProjection;
  up: PreparedProjection;
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
 * - queries, keys and values by heads, so that the products come out by heads and nothing is transposed in a prefill;
 * - the weight of each RMS norm multiplied into the projections that follow it.
 */
export function prepareLayer({headDim}: LlamaConfig, stored: LayerWeights<tf.Tensor>): PreparedLayer {
  const {attentionNorm, query, key, value, output, mlpNorm, gate, up, down} = stored;
  const prepared = tf.tidy(() => ({
    queryAndKey: joinHeads(byHeads(query, headDim, attentionNorm), byHeads(key, headDim, attentionNorm)),
    value: byHeads(value, headDim, attentionNorm),
    output: transposed(output),
    gate: transposed(gate, mlpNorm),
    up: transposed(up, mlpNorm),
    down: transposed(down),
  }));
  tf.dispose(stored);
  return prepared;
}

function transposed({weight, bias}: Projection<tf.Tensor>, norm?: tf.Tensor): PreparedProjection {
  const columns = tf.transpose(weight);
  return {
    weight: norm === undefined ? columns : tf.mul(columns, tf.expandDims(norm, 1)),
    ...(bias && {bias: tf.clone(bias)}),
  };
}

function byHeads({weight, bias}: Projection<tf.Tensor>, headDim: number, norm: tf.Tensor): PreparedProjection {
  const [outputs, inputs] = weight.shape;
  const heads = tf.reshape(weight, [outputs / headDim, headDim, inputs]);
  return {
    weight: tf.mul(tf.transpose(heads, [0, 2, 1]), tf.expandDims(norm, 1)),
    ...(bias && {bias: tf.reshape(bias, [outputs / headDim, 1, headDim])}),
  };
}

function joinHeads(a: PreparedProjection, b: PreparedProjection): PreparedProjection {
  return {
    weight: tf.concat([a.weight, b.weight]),
    ...(a.bias && b.bias && {bias: tf.concat([a.bias, b.bias])}),
  };
}
