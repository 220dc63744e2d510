import * as tf from '@tensorflow/tfjs-core';
import {blockGeometry, type BlockGeometry} from '../../src/kernels/block_geometry';
import type {Variant} from '../measure/variant';
import type {Candidate} from './candidate';
import {scoreCandidate} from './score';
import {currentStages, type KeyOrder, type Stages} from './stages';

export interface Grid {
  blockSize: number;
  segmentSize: number;
}

/** Block-sparse attention with the candidate in the place of the library's scores, everything else the library's. */
export function candidateVariant(candidate: Candidate, threshold: number, grid: Grid): Variant {
  const stages = currentStages();
  return {
    label: candidate.name,
    grid,
    attend: (query, key, value, onPlan) =>
      tf.tidy(() => {
        const geometry = candidateGeometry(query, key, grid);
        const scale = 1 / Math.sqrt(geometry.headDim);
        const plan = planCandidate(candidate, stages, query, key, geometry, scale, threshold);
        onPlan?.({keyIndices: tf.clone(plan.keyIndices), blockMask: stages.blockMask(plan.blockLists, geometry)});
        return stages.attend(query, key, value, plan, geometry, scale);
      }),
  };
}

/** Key order and block lists of a candidate, inside `tf.tidy`. */
export function planCandidate(
  candidate: Candidate,
  stages: Stages,
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  geometry: BlockGeometry,
  scale: number,
  threshold: number,
): {keyIndices: tf.Tensor3D; blockLists: tf.Tensor4D} {
  const order = orderKeys(candidate, stages, query, key, geometry, scale);
  const scores = scoreCandidate(candidate, stages, query, key, order, geometry, scale, threshold);
  return {
    keyIndices: order.keyIndices,
    blockLists: stages.selectBlocks(scores, order.keyIndices, geometry, threshold),
  };
}

export function candidateGeometry(query: tf.Tensor4D, key: tf.Tensor4D, grid: Grid): BlockGeometry {
  const geometry = blockGeometry(query, key, grid);
  if (geometry.keyLength % grid.segmentSize !== 0) {
    throw new Error(
      `candidates: got ${geometry.keyLength} tokens; takes a multiple of the segment size, ${grid.segmentSize}`,
    );
  }
  return geometry;
}

/** Inside `tf.tidy`. */
export function orderKeys(
  {changes}: Candidate,
  stages: Stages,
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  geometry: BlockGeometry,
  scale: number,
): KeyOrder {
  const order = stages.permute(query, key, geometry, scale, !changes.has('unpermuted'));
  if (!changes.has('group')) return order;
  const {heads, keyValueHeads, permutedLength} = geometry;
  const group = heads / keyValueHeads;
  const means = tf.mean(tf.reshape(order.keyScores, [keyValueHeads, group, permutedLength]), 1, true);
  const repeated = tf.add(means, tf.zeros([1, group, 1]));
  const shared = tf.reshape(repeated, [1, heads, permutedLength]) as tf.Tensor3D;
  return {keyScores: order.keyScores, keyIndices: stages.sortKeys(shared, geometry)};
}
