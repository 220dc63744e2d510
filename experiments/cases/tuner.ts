import * as tf from '@tensorflow/tfjs-core';
import {
  flashAttention,
  pbsAttention,
  tunePBSAttention,
  type AttentionSample,
  type TunedAttention,
} from '../../src/index';
import type {Experimenter} from '../experimenter';
import {withCaptured} from '../measure/capture';
import {promptSet} from '../prompts/prompt_set';
import type {TunedRow} from '../results';

/** Whether what the tuner chooses on one prompt holds on a prompt of another book; and what heads of their own would bring. */
export async function tuner(experimenter: Experimenter): Promise<void> {
  const {subject, options} = experimenter;
  const {blockSize, keyBlockSize, segmentSize} = options.sizes;
  const grid = {
    ...(blockSize && {blockSize}),
    ...(keyBlockSize && {keyBlockSize}),
    ...(segmentSize && {segmentSize}),
  };
  for (const length of options.lengths) {
    const [seen, unseen] = promptSet(subject.tokenizer, subject.books, options.tasks[0], length, 2);
    for (let layer = 0; layer < subject.model.config.layers; ++layer) {
      await experimenter.step('tuned', `layer ${layer} ${length}`, async () => {
        const tunings: TunedAttention[] = [];
        await withCaptured(subject, seen.ids, [layer], async ([sample]) => {
          for (const allowed of options.errors) {
            // No margin: how much is needed is what is asked.
            tunings.push(...(await tunePBSAttention(sample, {maxRelativeL1: allowed}, {...grid, margin: 0})));
          }
        });
        return withCaptured(subject, unseen.ids, [layer], async ([other]) => {
          const rows: TunedRow[] = [];
          for (const [i, allowed] of options.errors.entries()) {
            const tuned = tunings[i];
            const {chosen} = tuned;
            rows.push({
              ...{length, layer, allowed},
              segmentSize: chosen.options.segmentSize ?? 0,
              threshold: chosen.options.threshold!,
              permute: chosen.options.permute ?? false,
              density: chosen.density,
              headDensity: chosen.density,
              error: chosen.relativeL1,
              unseenError: await errorOf(other, tuned),
              expectedSpeedUp: chosen.expectedSpeedUp,
            });
          }
          return rows;
        });
      });
    }
  }
}

async function errorOf({query, key, value}: AttentionSample, {options}: TunedAttention): Promise<number> {
  const difference = tf.tidy(() => {
    const exact = flashAttention(query, key, value);
    const sparse = pbsAttention(query, key, value, options);
    return tf.div(tf.sum(tf.abs(tf.sub(sparse, exact))), tf.sum(tf.abs(exact)));
  });
  const [error] = await difference.data();
  difference.dispose();
  return error;
}
