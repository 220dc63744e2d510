import * as tf from '@tensorflow/tfjs-core';
import type {PBSAttentionPlan} from '../../src/index';

/** Score of what is not seen; exp() of it is 0 beside any other. */
export const UNSEEN = -1e9;

/** The keys that each query head reads, in that head's order: `[heads, length, headDim]`. */
export function orderedKeys(key: tf.Tensor4D, keyIndices: tf.Tensor3D): tf.Tensor3D {
  return tf.tidy(() => {
    const [, keyHeads, length, headDim] = key.shape;
    const [, heads] = keyIndices.shape;
    const firstRows = Array.from({length: heads}, (_, head) => Math.floor(head / (heads / keyHeads)) * length);
    const rows = tf.add(tf.reshape(keyIndices, [heads, length]), tf.tensor2d(firstRows, [heads, 1], 'int32'));
    const gathered = tf.gather(tf.reshape(key, [keyHeads * length, headDim]), tf.cast(tf.reshape(rows, [-1]), 'int32'));
    return tf.reshape(gathered, [heads, length, headDim]) as tf.Tensor3D;
  });
}

/**
 * Share of what some rows pay, in exact causal attention over the same queries and keys, to the blocks that a plan keeps for
 * them: `[heads, rows]`. Batch of one.
 */
export function keptShares(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  {keyIndices, blockMask, sizes}: PBSAttentionPlan,
  rows: readonly number[],
): tf.Tensor2D {
  return tf.tidy(() => {
    const [, heads, , headDim] = query.shape;
    const length = key.shape[2];
    const [, , queryBlocks, keyBlocks] = blockMask.shape;
    const {blockSize, keyBlockSize} = sizes!;
    const queries = tf.gather(tf.reshape(query, query.shape.slice(1)), tf.tensor1d([...rows], 'int32'), 1);
    const scaled = tf.mul(queries, 1 / Math.sqrt(headDim)) as tf.Tensor3D;
    const products = tf.matMul(scaled, orderedKeys(key, keyIndices), false, true);
    const positions = tf.tensor3d([...rows], [1, rows.length, 1], 'int32');
    const hidden = tf.greater(tf.reshape(keyIndices, [heads, 1, length]), positions);
    const weights = tf.softmax(tf.add(products, tf.mul(tf.cast(hidden, 'float32'), UNSEEN)));
    const whole = tf.pad(weights as tf.Tensor3D, [
      [0, 0],
      [0, 0],
      [0, keyBlocks * keyBlockSize - length],
    ]);
    const mass = tf.sum(tf.reshape(whole, [heads, rows.length, keyBlocks, keyBlockSize]), 3);
    const blocks = tf.tensor1d(
      rows.map((row) => Math.floor(row / blockSize)),
      'int32',
    );
    const kept = tf.gather(tf.reshape(blockMask, [heads, queryBlocks, keyBlocks]), blocks, 1);
    return tf.sum(tf.where(kept, mass, tf.zerosLike(mass)), 2) as tf.Tensor2D;
  });
}
