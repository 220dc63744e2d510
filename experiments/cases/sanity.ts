import * as tf from '@tensorflow/tfjs-core';
import {relativeL1} from '../../bench/statistics';
import type {Experimenter} from '../experimenter';
import {withCaptured} from '../measure/capture';
import {readPrompt} from '../measure/reading';
import {exactVariant, pbsVariant, type Variant} from '../measure/variant';
import {promptSet} from '../prompts/prompt_set';
import {candidateGeometry} from '../selection/candidate_variant';
import {currentStages} from '../selection/stages';

const GRID = {blockSize: 128, segmentSize: 256};

/** What must not change anything: a threshold of 1, and every block kept, with keys in either order. */
export async function sanity(experimenter: Experimenter): Promise<void> {
  const {subject, options} = experimenter;
  const checks: Variant[] = [
    pbsVariant('threshold 1', {threshold: 1}),
    pbsVariant('threshold 1, not permuted', {threshold: 1, permute: false}),
    everyBlock(true),
    everyBlock(false),
  ];
  const layers = Array.from({length: subject.model.config.layers}, (_, i) => i);
  for (const length of options.lengths) {
    const [prompt] = promptSet(subject.tokenizer, subject.books, 'end', length, 1);
    for (const variant of checks) {
      await experimenter.step('sanity', `${variant.label} ${length}`, async () => {
        const differences: number[] = [];
        await withCaptured(subject, prompt.ids, layers, async (captured) => {
          for (const {query, key, value} of captured) {
            const outputs = [variant, exactVariant].map(({attend}) => attend(query, key, value));
            const [values, exact] = await Promise.all(outputs.map((output) => output.data()));
            tf.dispose(outputs);
            differences.push(relativeL1(values, exact));
          }
        });
        const [read, exact] = [
          await readPrompt(subject, prompt, variant),
          await readPrompt(subject, prompt, exactVariant),
        ];
        return [
          {
            length,
            check: variant.label,
            outputDifference: Math.max(...differences),
            lossDifference: read.loss - exact.loss,
          },
        ];
      });
    }
  }
}

/** The sparse stages with a list of all blocks. A threshold of 1 takes another way: the library runs exact attention. */
function everyBlock(sort: boolean): Variant {
  const stages = currentStages();
  return {
    label: `every block, ${sort ? 'permuted' : 'not permuted'}`,
    grid: GRID,
    attend: (query, key, value) =>
      tf.tidy(() => {
        const geometry = candidateGeometry(query, key, GRID);
        const {heads, keyBlocks: blocks, headDim} = geometry;
        const scale = 1 / Math.sqrt(headDim);
        const {keyIndices} = stages.permute(query, key, geometry, scale, sort);
        // Scores of zero never reach a threshold.
        const scores = tf.zeros([1, heads, blocks, blocks]) as tf.Tensor4D;
        const blockLists = stages.selectBlocks(scores, keyIndices, geometry, 0.5);
        return stages.attend(query, key, value, {keyIndices, blockLists}, geometry, scale);
      }),
  };
}
