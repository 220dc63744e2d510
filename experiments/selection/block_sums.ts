import * as tf from '@tensorflow/tfjs-core';
import {type BlockGeometry, scoredBlocks, visibleBlocks} from '../../src/kernels/block_geometry';

/*
 * Pieces of which candidates for selection are made, in tfjs ops, for one causal sequence. They are written to be short
 * and to run on any backend; what such a rule would cost as kernels of its own is counted in multiply-adds.
 *
 * Shapes: query [heads, length, headDim]; keys [heads, length, headDim], in permuted order; blocks = length / blockSize.
 */

/** Values held at once by a matrix of scores: 64 MiB. */
const MOST_SCORES = 2 ** 24;

/** Score of what is not seen; exp() of it is 0 beside any other. */
const UNSEEN = -1e9;

/** The keys that each query head reads, in that head's order: `[heads, length, headDim]`. */
export function permutedKeys(key: tf.Tensor4D, keyIndices: tf.Tensor3D): tf.Tensor3D {
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
 * What some rows of each query block pay to each key block: float32 `[heads, blocks, rows, blocks]`, shares of all
 * that the row pays, its own segment included; 0 for blocks that do not compete.
 *
 * @param rows int32 `[heads, blocks, rows]`: positions of the rows of each block.
 */
export function massOfRows(
  query: tf.Tensor3D,
  keys: tf.Tensor3D,
  keyIndices: tf.Tensor3D,
  rows: tf.Tensor3D,
  geometry: BlockGeometry,
  scale: number,
  mostScores = MOST_SCORES,
): tf.Tensor4D {
  return tf.tidy(() => {
    const {heads, keyLength: length, headDim, blockSize, keyBlocks: blocks} = geometry;
    const perBlock = rows.shape[2];
    const firstRows = tf.tensor3d(
      Array.from({length: heads}, (_, head) => head * length),
      [heads, 1, 1],
      'int32',
    );
    const flat = tf.cast(tf.reshape(tf.add(rows, firstRows), [-1]), 'int32');
    const gathered = tf.gather(tf.reshape(query, [heads * length, headDim]), flat);
    const probes = tf.mul(tf.reshape(gathered, [heads, blocks * perBlock, headDim]), scale) as tf.Tensor3D;
    const positions = tf.reshape(keyIndices, [heads, 1, length]);

    const parts: tf.Tensor3D[] = [];
    const atOnce = Math.max(1, Math.floor(mostScores / (heads * perBlock * length)));
    for (let first = 0; first < blocks; first += atOnce) {
      const end = Math.min(blocks, first + atOnce);
      parts.push(
        tf.tidy(() => {
          const count = (end - first) * perBlock;
          const seen = visibleBlocks(geometry, true, end - 1);
          const own = tf.slice(probes, [0, first * perBlock, 0], [heads, count, headDim]);
          const products = tf.matMul(own, tf.slice(keys, [0, 0, 0], [heads, seen * blockSize, headDim]), false, true);
          const rowOf = tf.reshape(tf.slice(rows, [0, first, 0], [heads, end - first, perBlock]), [heads, count, 1]);
          const hidden = tf.greater(tf.slice(positions, [0, 0, 0], [heads, 1, seen * blockSize]), rowOf);
          const scores = tf.add(products, tf.mul(tf.cast(hidden, 'float32'), UNSEEN));
          const weights = tf.exp(tf.sub(scores, tf.max(scores, 2, true)));
          const mass = tf.sum(tf.reshape(weights, [heads, count, seen, blockSize]), 3);
          const shares = tf.div(mass, tf.sum(mass, 2, true));
          return tf.pad(shares as tf.Tensor3D, [
            [0, 0],
            [0, 0],
            [0, blocks - seen],
          ]);
        }),
      );
    }
    const all = tf.reshape(tf.concat(parts, 1), [heads, blocks, perBlock, blocks]);
    return tf.mul(all, tf.reshape(competing(geometry), [1, blocks, 1, blocks]));
  });
}

/** `[blocks, blocks]`: 1 where a key block competes for a query block, that is lies in an earlier segment. */
export function competing(geometry: BlockGeometry): tf.Tensor2D {
  const {keyBlocks: blocks} = geometry;
  const values = new Float32Array(blocks * blocks);
  for (let block = 0; block < blocks; ++block) {
    values.fill(1, block * blocks, block * blocks + scoredBlocks(geometry, true, block));
  }
  return tf.tensor2d(values, [blocks, blocks]);
}

/** Means of `size` consecutive rows: `[heads, length / size, headDim]`. */
export function pooled(x: tf.Tensor3D, size: number): tf.Tensor3D {
  const [heads, length, headDim] = x.shape;
  return size === 1 ? tf.clone(x) : (tf.mean(tf.reshape(x, [heads, length / size, size, headDim]), 2) as tf.Tensor3D);
}

/**
 * The shares that query vectors pay to key blocks when each key vector stands for as many keys:
 * `[heads, blocks, blocks]`, a softmax over the key vectors of earlier segments, added up by block and averaged over the
 * query vectors of a block.
 *
 * @param queries `[heads, blocks * n, size]`, scaled.
 * @param keys `[heads, blocks * m, size]`.
 */
export function massOfVectors(
  queries: tf.Tensor3D,
  keys: tf.Tensor3D,
  geometry: BlockGeometry,
  mostScores = MOST_SCORES,
): tf.Tensor3D {
  return tf.tidy(() => {
    const {heads, keyBlocks: blocks} = geometry;
    const [, queryCount, size] = queries.shape;
    const [perQueryBlock, perKeyBlock] = [queryCount / blocks, keys.shape[1] / blocks];
    const parts: tf.Tensor3D[] = [];
    const atOnce = Math.max(1, Math.floor(mostScores / (heads * perQueryBlock * keys.shape[1])));
    for (let first = 0; first < blocks; first += atOnce) {
      const end = Math.min(blocks, first + atOnce);
      parts.push(
        tf.tidy(() => {
          const count = end - first;
          const own = tf.slice(queries, [0, first * perQueryBlock, 0], [heads, count * perQueryBlock, size]);
          const seen = tf.reshape(tf.slice(competing(geometry), [first, 0], [count, blocks]), [1, count, 1, blocks, 1]);
          const products = tf.reshape(tf.matMul(own, keys, false, true), [
            heads,
            count,
            perQueryBlock,
            blocks,
            perKeyBlock,
          ]);
          const scores = tf.reshape(tf.add(products, tf.mul(tf.sub(1, seen), UNSEEN)), [
            heads,
            count * perQueryBlock,
            blocks * perKeyBlock,
          ]);
          const weights = tf.exp(tf.sub(scores, tf.max(scores, 2, true)));
          const byBlock = tf.sum(tf.reshape(weights, [heads, count * perQueryBlock, blocks, perKeyBlock]), 3);
          const shares = tf.reshape(tf.div(byBlock, tf.sum(byBlock, 2, true)), [heads, count, perQueryBlock, blocks]);
          return tf.mul(tf.mean(shares, 2), tf.reshape(seen, [1, count, blocks])) as tf.Tensor3D;
        }),
      );
    }
    return tf.concat(parts, 1);
  });
}

/** Each row divided by its sum; a row of zeros stays. */
export function normalised(scores: tf.Tensor3D): tf.Tensor3D {
  return tf.tidy(() => tf.divNoNan(scores, tf.sum(scores, 2, true)) as tf.Tensor3D);
}
