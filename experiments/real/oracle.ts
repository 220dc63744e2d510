import * as tf from '@tensorflow/tfjs-core';
import type {PBSAttentionPlan} from '../../src/index';
import {
  blockGeometry,
  type BlockGeometry,
  leastScore,
  peakWeight,
  scoredBlocks,
  visibleBlocks,
} from '../../src/internal';
import {orderedKeys, UNSEEN} from './attention_mass';

/** Scores held at once: 512 MiB, four times that with what is computed of them. */
const MOST_SCORES = 2 ** 27;

/**
 * Keys are counted in this many lengths: tfjs keeps a freed buffer for one of the same size, and would keep gigabytes of
 * sizes that come once.
 */
const KEY_LENGTHS = 8;

/** Stands above every score, for what is always kept. */
const ALWAYS = 1e9;

/**
 * The blocks that the default rule would keep if it knew what every row pays to every key: bool `[1, heads, queryBlocks,
 * keyBlocks]`. Causal attention of as many queries as keys, batch of one; blocks of queries lie inside segments.
 *
 * @param plan key order and sizes.
 */
export function oracleMask(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  plan: PBSAttentionPlan,
  threshold: number,
  mostScores = MOST_SCORES,
): tf.Tensor4D {
  return tf.tidy(() => {
    const {keyIndices, sizes} = plan;
    const geometry = blockGeometry(query, key, sizes!);
    const {heads, keyValueHeads, queryLength: length, headDim, keyBlockSize, queryBlocks, keyBlocks} = geometry;
    const queries = tf.reshape(tf.mul(query, 1 / Math.sqrt(headDim)), [heads, length, headDim]) as tf.Tensor3D;
    const headsAtOnce = Math.max(1, Math.floor(mostScores / (geometry.segmentSize * length)));
    const group = heads / keyValueHeads;
    const own = tf.gather(
      tf.reshape(key, [keyValueHeads, length, headDim]) as tf.Tensor3D,
      tf.tensor1d(
        Array.from({length: heads}, (_, head) => Math.floor(head / group)),
        'int32',
      ),
    );
    const ordered = orderedKeys(key, keyIndices);
    const parts: tf.Tensor3D[] = [];
    for (let head = 0; head < heads; head += headsAtOnce) {
      const count = Math.min(headsAtOnce, heads - head);
      const of = (x: tf.Tensor3D) => tf.slice(x, [head, 0, 0], [count, length, headDim]);
      parts.push(tf.tidy(() => trueScores(of(queries), of(ordered), of(own), geometry)));
    }
    // The block that holds key 0 is kept for every row.
    const isFirstKey = tf.cast(tf.equal(tf.reshape(keyIndices, [heads, 1, length]), 0), 'float32');
    const whole = tf.pad(isFirstKey as tf.Tensor3D, [
      [0, 0],
      [0, 0],
      [0, keyBlocks * keyBlockSize - length],
    ]);
    const isSink = tf.sum(tf.reshape(whole, [heads, 1, keyBlocks, keyBlockSize]), 3);
    const scores = tf.add(tf.add(tf.concat(parts, 0), tf.mul(isSink, ALWAYS)), forcedBlocks(geometry));
    const least = Array.from({length: queryBlocks}, (_, block) => leastScore(geometry, true, threshold, block));
    const kept = tf.greaterEqual(scores, tf.tensor3d(least, [1, queryBlocks, 1]));
    return tf.reshape(kept, [1, heads, queryBlocks, keyBlocks]) as tf.Tensor4D;
  });
}

/** `[1, queryBlocks, keyBlocks]`, to be added to scores: blocks of a query block's own segment, and those that it never sees. */
function forcedBlocks(geometry: BlockGeometry): tf.Tensor3D {
  const {queryBlocks, keyBlocks} = geometry;
  const values = new Float32Array(queryBlocks * keyBlocks).fill(-2 * ALWAYS);
  for (let block = 0; block < queryBlocks; ++block) {
    const row = values.subarray(block * keyBlocks, (block + 1) * keyBlocks);
    row.fill(ALWAYS, 0, visibleBlocks(geometry, true, block));
    row.fill(0, 0, scoredBlocks(geometry, true, block));
  }
  return tf.tensor3d(values, [1, queryBlocks, keyBlocks]);
}

/**
 * What the rows of each query block really pay to each key block that competes for it, mean and a share of the most that one
 * pays: `[heads, queryBlocks, keyBlocks]`, 0 elsewhere.
 *
 * @param queries scaled, `[heads, length, headDim]`.
 * @param ordered keys in the order of the plan, of each query head.
 * @param own the same keys in their own order: inside a segment the mask is then a triangle.
 */
function trueScores(
  queries: tf.Tensor3D,
  ordered: tf.Tensor3D,
  own: tf.Tensor3D,
  {blockSize, keyBlockSize, segmentSize, keyBlocks}: BlockGeometry,
): tf.Tensor3D {
  const [heads, length, headDim] = queries.shape;
  const stride = Math.ceil(length / KEY_LENGTHS / segmentSize) * segmentSize;
  const wholeTriangle = triangle(segmentSize, 0);
  const parts: tf.Tensor3D[] = [];
  for (let start = 0, end: number; start < length; start = end) {
    const segment = Math.floor(start / segmentSize) * segmentSize;
    const rest = Math.min(segment + segmentSize, length) - start;
    // A last partial block goes alone.
    const rows = rest >= blockSize ? Math.floor(rest / blockSize) * blockSize : rest;
    end = start + rows;
    const blockRows = Math.min(blockSize, rows);
    const blocks = rows / blockRows;
    if (segment === 0) {
      parts.push(tf.zeros([heads, blocks, keyBlocks]));
      continue;
    }
    const keys = Math.min(Math.ceil(segment / stride) * stride, Math.floor(length / segmentSize) * segmentSize);
    parts.push(
      tf.tidy(() => {
        const ofRows = tf.slice(queries, [0, start, 0], [heads, rows, headDim]);
        const earlier = tf.fused.matMul({
          a: ofRows,
          b: tf.slice(ordered, [0, 0, 0], [heads, keys, headDim]),
          transposeB: true,
          bias: hiddenFrom(segment, keys),
        }) as tf.Tensor3D;
        const ownKeys = tf.slice(own, [0, segment, 0], [heads, end - segment, headDim]);
        const unseen = rows === segmentSize ? wholeTriangle : triangle(rows, start - segment);
        const inside = tf.add(tf.matMul(ofRows, ownKeys, false, true), unseen);
        const most = tf.maximum(tf.max(earlier, 2, true), tf.max(inside, 2, true));
        const weights = tf.exp(tf.sub(earlier, most));
        const mass = tf.sum(tf.reshape(weights, [heads, rows, keys / keyBlockSize, keyBlockSize]), 3);
        const sum = tf.add(tf.sum(mass, 2, true), tf.sum(tf.exp(tf.sub(inside, most)), 2, true));
        const shares = tf.reshape(tf.div(mass, sum), [heads, blocks, blockRows, keys / keyBlockSize]);
        const scores = tf.add(tf.mean(shares, 2), tf.mul(tf.max(shares, 2), peakWeight)) as tf.Tensor3D;
        return tf.pad(scores, [
          [0, 0],
          [0, 0],
          [0, keyBlocks - keys / keyBlockSize],
        ]);
      }),
    );
  }
  return tf.concat(parts, 1);
}

/** `[keys]`, to be added to scores: keys from `first` on are not seen. */
function hiddenFrom(first: number, keys: number): tf.Tensor1D {
  return tf.tensor1d(new Float32Array(keys).fill(UNSEEN, first));
}

/** `[rows, keys]`, to be added to scores of rows and keys that end together: row i sees the first `offset + i + 1` keys. */
function triangle(rows: number, offset: number): tf.Tensor2D {
  const keys = offset + rows;
  const values = new Float32Array(rows * keys);
  for (let row = 0; row < rows; ++row) values.fill(UNSEEN, row * keys + offset + row + 1, (row + 1) * keys);
  return tf.tensor2d(values, [rows, keys]);
}
