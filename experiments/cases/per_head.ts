import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import {pbsAttentionPlan} from '../../src/index';
import {visibleBlocks} from '../../src/kernels/block_geometry';
import type {Experimenter} from '../experimenter';
import {withCaptured} from '../measure/capture';
import {promptSet} from '../prompts/prompt_set';
import type {HeadRow} from '../results';
import {massOfRows, normalised, permutedKeys} from '../selection/block_sums';
import {candidateGeometry, type Grid} from '../selection/candidate_variant';
import {chooseRows} from '../selection/score';
import {currentStages, type Stages} from '../selection/stages';

/** What the permutation is worth to each head: the blocks that hold so much of its mass, in either order of keys. */
export async function perHead(experimenter: Experimenter): Promise<void> {
  const {subject, options} = experimenter;
  const grid = {blockSize: options.blockSizes[0], segmentSize: options.segmentSizes[0]};
  const stages = currentStages();
  for (const length of options.lengths) {
    const [prompt] = promptSet(subject.tokenizer, subject.books, options.tasks[0], length, 1);
    for (let layer = 0; layer < subject.model.config.layers; ++layer) {
      await experimenter.step('heads', `layer ${layer} ${length}`, async () => {
        const [permuted, unpermuted] = await withCaptured(subject, prompt.ids, [layer], async ([inputs]) => [
          await headsOf(stages, inputs, true, options.thresholds[0], grid),
          await headsOf(stages, inputs, false, options.thresholds[0], grid),
        ]);
        return permuted.map(({density, kept}, head): HeadRow => {
          return {
            length,
            layer,
            head,
            permuted: density,
            unpermuted: unpermuted[head].density,
            keptPermuted: kept,
            keptUnpermuted: unpermuted[head].kept,
          };
        });
      });
    }
  }
}

/**
 * For each head: the share of visible blocks that the selection rule keeps when it knows the true mass of every block; and
 * the share of the true mass in the blocks that the library keeps.
 */
async function headsOf(
  stages: Stages,
  {query, key}: Inputs,
  permute: boolean,
  threshold: number,
  grid: Grid,
): Promise<Array<{density: number; kept: number}>> {
  const [densities, kept] = tf.tidy((): [tf.Tensor, tf.Tensor] => {
    const geometry = candidateGeometry(query, key, grid);
    const {heads, keyLength: length, headDim, blockSize, keyBlocks: blocks} = geometry;
    const scale = 1 / Math.sqrt(headDim);
    const {keyIndices} = stages.permute(query, key, geometry, scale, permute);
    const queries = tf.reshape(query, [heads, length, headDim]) as tf.Tensor3D;
    const rows = chooseRows({choice: 'strided', count: blockSize}, queries, key, geometry);
    const all = massOfRows(queries, permutedKeys(key, keyIndices), keyIndices, rows, geometry, scale);
    const mass = tf.mean(all, 2) as tf.Tensor3D;
    const scores = tf.reshape(normalised(mass), [1, heads, blocks, blocks]) as tf.Tensor4D;
    const needed = stages.blockMask(stages.selectBlocks(scores, keyIndices, geometry, threshold), geometry);
    let visible = 0;
    for (let block = 0; block < blocks; ++block) visible += visibleBlocks(geometry, true, block);
    const library = pbsAttentionPlan(query, key, {...grid, threshold, permute});
    const lost = tf.mul(mass, tf.sub(1, tf.reshape(tf.cast(library.blockMask, 'float32'), [heads, blocks, blocks])));
    // Along the last axis: on WebGPU, tfjs 4.22 cannot transpose what was cast to float32, since its values stay integers.
    const count = tf.sum(tf.reshape(tf.cast(needed, 'float32'), [heads, blocks * blocks]), 1);
    return [tf.div(count, visible), tf.sub(1, tf.div(tf.sum(lost, [1, 2]), blocks))];
  });
  const [density, share] = (await Promise.all([densities.data(), kept.data()])) as Float32Array[];
  tf.dispose([densities, kept]);
  return Array.from(density, (x, head) => ({density: x, kept: share[head]}));
}
