import {quantile} from '../../bench/statistics';
import {generate} from '../../runner/llama/generate';
import type {Experimenter} from '../experimenter';
import {promptSet} from '../prompts/prompt_set';
import {exactVariant, pbsVariant, type Variant} from '../measure/variant';

const WARM_UPS = 2;
const RUNS = 9;

/** Time from the call of the prefill until the first token was read back; nothing else runs meanwhile. */
export async function firstToken(experimenter: Experimenter): Promise<void> {
  const {subject, options} = experimenter;
  const variants: Variant[] = [
    exactVariant,
    ...options.thresholds.map((threshold) => pbsVariant(`PBS-Attn, τ ${threshold}`, {threshold})),
  ];
  for (const length of options.lengths) {
    const [{ids}] = promptSet(subject.tokenizer, subject.books, 'end', length, 1);
    for (const {label, attend} of variants) {
      await experimenter.step('firstToken', `${label} ${length}`, async () => {
        const times: number[] = [];
        for (let run = -WARM_UPS; run < RUNS; ++run) {
          const {firstTokenMs} = await generate(subject.model, ids, {
            attend: (_, query, key, value) => attend(query, key, value),
            maxTokens: 1,
          });
          if (run >= 0) times.push(firstTokenMs);
        }
        const [low, median, high] = [0.25, 0.5, 0.75].map((part) => quantile(times, part));
        return [{length, variant: label, median, low, high, runs: RUNS}];
      });
    }
  }
}
