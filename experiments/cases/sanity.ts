import * as tf from '@tensorflow/tfjs-core';
import {relativeL1} from '../../bench/statistics';
import {pbsAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, type BlockGeometry, visibleBlocks} from '../../src/internal';
import type {Experimenter} from '../experimenter';
import {withCaptured} from '../measure/capture';
import {readPrompt} from '../measure/reading';
import {exactVariant, pbsVariant, type Variant} from '../measure/variant';
import {promptSet} from '../prompts/prompt_set';

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

/** The sparse stages by a plan of all blocks. A threshold of 1 takes another way: the library runs exact attention. */
function everyBlock(permute: boolean): Variant {
  return {
    label: `every block, ${permute ? 'permuted' : 'not permuted'}`,
    attend: (query, key, value) =>
      tf.tidy(() => {
        const plan = pbsAttentionPlan(query, key, {permute});
        const blockMask = allVisible(blockGeometry(query, key, plan.sizes!));
        return pbsAttention(query, key, value, {plan: {...plan, blockMask}});
      }),
  };
}

/** bool `[batch, heads, queryBlocks, keyBlocks]`: whatever a query block may see. */
function allVisible(geometry: BlockGeometry): tf.Tensor4D {
  const {batch, heads, queryBlocks, keyBlocks} = geometry;
  const values = new Uint8Array(batch * heads * queryBlocks * keyBlocks);
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    values.fill(1, row * keyBlocks, row * keyBlocks + visibleBlocks(geometry, true, row % queryBlocks));
  }
  return tf.tensor4d(values, [batch, heads, queryBlocks, keyBlocks], 'bool');
}
