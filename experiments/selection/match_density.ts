import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import {visibleBlocks} from '../../src/kernels/block_geometry';
import {mean} from '../statistics';
import type {Candidate} from './candidate';
import {candidateGeometry, type Grid, orderKeys} from './candidate_variant';
import {estimateShares, scoresOf} from './score';
import {currentStages} from './stages';

const STEPS = 9;

/**
 * The threshold with which a candidate keeps at most that share of the visible blocks, mean over layers and heads of
 * captured attention; to 1 in 500. Candidates are compared at one density: a threshold means something else to each.
 */
export async function matchDensity(
  candidate: Candidate,
  captured: readonly Inputs[],
  density: number,
  grid: Grid,
): Promise<number> {
  const stages = currentStages();
  const geometries = captured.map(({query, key}) => candidateGeometry(query, key, grid));
  // In one tidy, so that a layer which fails leaves nothing of those before it.
  const layers = tf.tidy(() =>
    captured.map(({query, key}, layer) => {
      const geometry = geometries[layer];
      const scale = 1 / Math.sqrt(geometry.headDim);
      const order = tf.tidy(() => ({...orderKeys(candidate, stages, query, key, geometry, scale)}));
      return {...order, shares: estimateShares(candidate, stages, query, key, order, geometry, scale)};
    }),
  );
  const densityAt = async (threshold: number) => {
    const parts = tf.tidy(() =>
      tf.stack(
        layers.map(({shares, ...order}, layer) => {
          const geometry = geometries[layer];
          const used = scoresOf(candidate, shares, order, geometry, threshold);
          const lists = stages.selectBlocks(used, order.keyIndices, geometry, threshold);
          const kept = tf.sum(tf.cast(stages.blockMask(lists, geometry), 'float32'));
          let visible = 0;
          for (let block = 0; block < geometry.queryBlocks; ++block) visible += visibleBlocks(geometry, true, block);
          return tf.div(kept, geometry.heads * visible);
        }),
      ),
    );
    const values = Array.from(await parts.data());
    parts.dispose();
    return mean(values);
  };
  try {
    const least = await densityAt(0);
    if (least > density) {
      throw new Error(`density ${density}: the blocks that are always kept are ${least.toFixed(3)}; accepted: more`);
    }
    let [low, high] = [0, 1];
    for (let step = 0; step < STEPS; ++step) {
      const middle = (low + high) / 2;
      if ((await densityAt(middle)) > density) high = middle;
      else low = middle;
    }
    return low;
  } finally {
    tf.dispose(layers);
  }
}
