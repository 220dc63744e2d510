import * as tf from '@tensorflow/tfjs-core';
import type {HeldRows} from './cache';

/**
 * Attention of one new token to positions of a cache, its own included, under one softmax.
 *
 * @param query float32 `[1, heads, 1, headDim]`.
 * @returns float32 `[1, heads, 1, headDim]`.
 */
export function decodeAttention(query: tf.Tensor4D, {rest, page, restBias, pageBias}: HeldRows): tf.Tensor4D {
  return tf.tidy(() => {
    const [, heads, , headDim] = query.shape;
    const keyValueHeads = rest.key.shape[1];
    const byHead = (x: tf.Tensor4D) => tf.reshape(x, [keyValueHeads, x.shape[2], headDim]);
    const scaled = tf.mul(query, 1 / Math.sqrt(headDim));
    const queries = tf.reshape(scaled, [keyValueHeads, heads / keyValueHeads, headDim]);
    const score = (key: tf.Tensor4D) => tf.matMul(queries, byHead(key), false, true);
    const restScores = restBias === undefined ? score(rest.key) : tf.add(score(rest.key), restBias);
    const weights = tf.softmax(tf.concat([restScores, tf.add(score(page.key), pageBias)], 2));
    const [restWeights, pageWeights] = tf.split(weights, [rest.key.shape[2], page.key.shape[2]], 2);
    const output = tf.add(tf.matMul(restWeights, byHead(rest.value)), tf.matMul(pageWeights, byHead(page.value)));
    return tf.reshape(output, [1, heads, 1, headDim]);
  });
}
