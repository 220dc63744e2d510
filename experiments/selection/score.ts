import * as tf from '@tensorflow/tfjs-core';
import {type BlockGeometry, firstProxyBlock} from '../../src/kernels/block_geometry';
import {competing, massOfRows, massOfVectors, normalised, permutedKeys, pooled} from './block_sums';
import type {Candidate, RowChoice} from './candidate';
import type {KeyOrder, Stages} from './stages';

/** Least share of the threshold that earlier segments must still bring: a division by zero would keep every block. */
const LEAST_REST = 1e-4;

/**
 * The candidate's scores, `[1, heads, blocks, blocks]`, for the library's selection with the same threshold.
 *
 * @param query `[1, heads, length, headDim]`, the length a multiple of the segment size.
 */
export function scoreCandidate(
  candidate: Candidate,
  stages: Stages,
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  order: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  threshold: number,
): tf.Tensor4D {
  return tf.tidy(() => {
    const shares = estimateShares(candidate, stages, query, key, order, geometry, scale);
    return scoresOf(candidate, shares, order, geometry, threshold);
  });
}

/** Scores of what {@link estimateShares} gave. */
export function scoresOf(
  {changes}: Candidate,
  shares: tf.Tensor3D,
  order: KeyOrder,
  geometry: BlockGeometry,
  threshold: number,
): tf.Tensor4D {
  return tf.tidy(() => {
    const {heads, keyBlocks: blocks} = geometry;
    // A threshold on all that is paid, of which the own segment has brought its part before any block is chosen.
    const counted = (x: tf.Tensor3D) => (changes.has('own') ? withOwnSegment(x, threshold) : normalised(x));
    let scores = counted(shares);
    if (!changes.has('paper')) scores = withLastBlocks(scores, counted(proxyMass(order, geometry)), geometry);
    return tf.reshape(scores, [1, heads, blocks, blocks]);
  });
}

/** `[heads, blocks, blocks]`: what each query block is estimated to pay to each that competes, 0 elsewhere. */
export function estimateShares(
  candidate: Candidate,
  stages: Stages,
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  order: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
): tf.Tensor3D {
  return tf.tidy(() => estimate(candidate, stages, query, key, order, geometry, scale));
}

function estimate(
  {estimate, changes}: Candidate,
  stages: Stages,
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  order: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
): tf.Tensor3D {
  const {heads, keyLength: length, headDim, blockSize, keyBlocks: blocks} = geometry;
  const queries = tf.reshape(query, [heads, length, headDim]) as tf.Tensor3D;
  const library = () =>
    tf.reshape(stages.scoreBlocks(query, key, order, geometry, scale), [heads, blocks, blocks]) as tf.Tensor3D;
  if (estimate.kind === 'pooled') return library();
  const keys = permutedKeys(key, order.keyIndices);
  switch (estimate.kind) {
    case 'pool': {
      const means = tf.mul(pooled(queries, estimate.queries), scale) as tf.Tensor3D;
      return massOfVectors(means, pooled(keys, estimate.keys), geometry);
    }
    case 'antidiagonal': {
      const {stride} = estimate;
      const shape: [number, number, number] = [heads, length / stride, stride * headDim];
      const reversed = tf.reverse(tf.reshape(queries, [heads, length / stride, stride, headDim]), 2);
      const sums = tf.mul(tf.reshape(reversed, shape), scale / stride) as tf.Tensor3D;
      return massOfVectors(sums, tf.reshape(keys, shape), geometry);
    }
    default: {
      const choices: RowChoice[] =
        estimate.kind === 'mass' ? [{choice: 'strided', count: blockSize}] : estimate.choices;
      const rows = choices.map((choice) => chooseRows(choice, queries, key, geometry));
      const mass = massOfRows(queries, keys, order.keyIndices, tf.concat(rows, 2), geometry, scale);
      const meanOf = (rows: tf.Tensor) => {
        let mean = tf.mean(rows, 2) as tf.Tensor3D;
        if (changes.has('smooth')) mean = smoothed(mean, geometry);
        return changes.has('pooled') ? withPooled(mean, library()) : mean;
      };
      if (changes.has('peak')) return withPeaks(mass, choices, meanOf);
      const mean = meanOf(mass);
      if (changes.has('max')) return tf.max(mass, 2);
      if (changes.has('mix')) return tf.add(normalised(mean), normalised(tf.max(mass, 2)));
      return mean;
    }
  }
}

/** Weight of the largest share that a chosen row pays, beside the mean of the strided rows. */
const PEAK = 0.1;

/** From `[heads, blocks, rows, blocks]`: what rows at large pay, and what a single one needs. */
function withPeaks(
  mass: tf.Tensor4D,
  choices: readonly RowChoice[],
  meanOf: (rows: tf.Tensor) => tf.Tensor3D,
): tf.Tensor3D {
  const parts = tf.split(
    mass,
    choices.map(({count}) => count),
    2,
  );
  const of = (strided: boolean) =>
    tf.concat(
      parts.filter((_, i) => (choices[i].choice === 'strided') === strided),
      2,
    );
  return tf.div(tf.add(meanOf(of(true)), tf.mul(tf.max(of(false), 2), PEAK)), 1 + PEAK) as tf.Tensor3D;
}

/** Part of the mean of rows that the pooled estimate takes. */
const POOLED = 0.25;

/** Shares partly distributed as the pooled estimate says, which adds up to 1; what a row pays to all blocks stays. */
function withPooled(shares: tf.Tensor3D, estimate: tf.Tensor3D): tf.Tensor3D {
  const far = tf.sum(shares, 2, true);
  return tf.add(tf.mul(shares, 1 - POOLED), tf.mul(tf.mul(estimate, far), POOLED)) as tf.Tensor3D;
}

/** Weight of a neighbour's mean beside a query block's own. */
const NEIGHBOUR = 0.5;

/**
 * Shares `[heads, blocks, blocks]` averaged over neighbouring query blocks, as far as a key block competes for them too: a
 * few rows say more of what a block needs together with those beside it. What a row pays to all blocks stays.
 */
export function smoothed(shares: tf.Tensor3D, geometry: BlockGeometry): tf.Tensor3D {
  return tf.tidy(() => {
    const {keyBlocks: blocks} = geometry;
    const seen = tf.reshape(competing(geometry), [1, blocks, blocks]) as tf.Tensor3D;
    const withNeighbours = (x: tf.Tensor3D) => {
      const [heads] = x.shape;
      const shifted = (start: number, before: number) =>
        tf.pad(tf.slice(x, [0, start, 0], [heads, blocks - 1, blocks]), [
          [0, 0],
          [before, 1 - before],
          [0, 0],
        ]);
      return tf.add(x, tf.mul(tf.add(shifted(0, 1), shifted(1, 0)), NEIGHBOUR));
    };
    const mean = tf.mul(tf.divNoNan(withNeighbours(shares), withNeighbours(seen)), seen);
    return tf.mul(mean, tf.divNoNan(tf.sum(shares, 2, true), tf.sum(mean, 2, true))) as tf.Tensor3D;
  });
}

/** int32 `[heads, blocks, count]`: positions of the rows of each query block that stand for all. */
export function chooseRows(
  {choice, count}: RowChoice,
  queries: tf.Tensor3D,
  key: tf.Tensor4D,
  {heads, keyValueHeads, keyLength: length, headDim, blockSize, keyBlocks: blocks}: BlockGeometry,
): tf.Tensor3D {
  return tf.tidy(() => {
    const firstRows = tf.reshape(tf.range(0, blocks, 1, 'int32'), [1, blocks, 1]);
    const inBlock = (rows: tf.Tensor) => tf.add(rows, tf.mul(firstRows, tf.scalar(blockSize, 'int32'))) as tf.Tensor3D;
    if (choice === 'strided') {
      const places = Array.from({length: count}, (_, i) => Math.floor(((i + 1) * blockSize) / count) - 1);
      // Adding to zeros: tfjs's tile reads back on WebGPU.
      return inBlock(tf.add(tf.zeros([heads, blocks, 1], 'int32'), tf.tensor3d(places, [1, 1, count], 'int32')));
    }
    const x = tf.reshape(queries, [heads, blocks, blockSize, headDim]);
    let distance: tf.Tensor;
    if (choice === 'sinkless') {
      const sinks = tf.reshape(tf.slice(key, [0, 0, 0, 0], [1, keyValueHeads, 1, headDim]), [
        keyValueHeads,
        1,
        headDim,
      ]);
      const grouped = tf.reshape(queries, [keyValueHeads, (heads / keyValueHeads) * length, headDim]);
      distance = tf.neg(tf.reshape(tf.sum(tf.mul(grouped, sinks), 2), [heads, blocks, blockSize]));
    } else {
      const from = choice === 'outlying' ? tf.sub(x, tf.mean(x, 2, true)) : x;
      distance = tf.sum(tf.square(from), 3);
    }
    return inBlock(topIndices(distance as tf.Tensor3D, count));
  });
}

/**
 * int32 `[heads, blocks, count]`: places of the largest values of the last axis, ties by the lower place. By counting, as
 * tfjs's topk reads back on some backends.
 */
function topIndices(x: tf.Tensor3D, count: number): tf.Tensor3D {
  const [heads, blocks, size] = x.shape;
  const own = tf.reshape(x, [heads, blocks, size, 1]);
  const other = tf.reshape(x, [heads, blocks, 1, size]);
  const place = tf.range(0, size, 1, 'int32');
  const earlier = tf.less(tf.reshape(place, [1, size]), tf.reshape(place, [size, 1]));
  const before = tf.logicalOr(tf.greater(other, own), tf.logicalAnd(tf.equal(other, own), earlier));
  const rank = tf.sum(tf.cast(before, 'int32'), 3);
  const isRank = tf.equal(
    tf.reshape(rank, [heads, blocks, 1, size]),
    tf.reshape(tf.range(0, count, 1, 'int32'), [count, 1]),
  );
  return tf.sum(tf.mul(tf.cast(isRank, 'int32'), place), 3) as tf.Tensor3D;
}

/** What the proxy rows pay to each key block, in the rows of the query blocks that hold them; zeros elsewhere. */
function proxyMass({keyScores, keyIndices}: KeyOrder, geometry: BlockGeometry): tf.Tensor3D {
  const {heads, keyLength: length, blockSize, keyBlocks: blocks} = geometry;
  const firstKeys = tf.tensor2d(
    Array.from({length: heads}, (_, head) => head * length),
    [heads, 1],
    'int32',
  );
  const flat = tf.cast(tf.reshape(tf.add(tf.reshape(keyIndices, [heads, length]), firstKeys), [-1]), 'int32');
  const sorted = tf.gather(tf.reshape(keyScores, [-1]), flat);
  const mass = tf.reshape(tf.sum(tf.reshape(sorted, [heads, blocks, blockSize]), 2), [heads, 1, blocks]);
  return tf.mul(mass, tf.reshape(competing(geometry), [1, blocks, blocks])) as tf.Tensor3D;
}

function withLastBlocks(scores: tf.Tensor3D, last: tf.Tensor3D, geometry: BlockGeometry): tf.Tensor3D {
  const {heads, keyBlocks: blocks} = geometry;
  const first = firstProxyBlock(geometry);
  return tf.concat(
    [
      tf.slice(scores, [0, 0, 0], [heads, first, blocks]),
      tf.slice(last, [0, first, 0], [heads, blocks - first, blocks]),
    ],
    1,
  );
}

/**
 * Shares of all that is paid, scaled so that their sum reaches the threshold where, together with the own segment's, the
 * shares themselves do: `own + sum >= threshold`, that is `sum * threshold / (threshold - own) >= threshold`.
 */
function withOwnSegment(shares: tf.Tensor3D, threshold: number): tf.Tensor3D {
  const own = tf.sub(1, tf.sum(shares, 2, true));
  return tf.div(tf.mul(shares, threshold), tf.maximum(tf.sub(threshold, own), LEAST_REST)) as tf.Tensor3D;
}
