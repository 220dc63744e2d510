import {quantile} from '../../bench/statistics';
import {generate} from '../../runner/llama/generate';
import {flashAttention, pbsAttention} from '../../src/index';
import type {Measurer} from './measurer';
import {EXACT, rounded} from './results';

const WARM_UPS = 1;
const RUNS = 3;

/** Time from the call of the prefill until the first token was read back, over the first text. */
export async function firstToken(measurer: Measurer): Promise<void> {
  const {options, device, model, run} = measurer;
  const rules = options.rules.filter(({isOracle}) => !isOracle);
  for (const length of options.lengths) {
    for (const precision of device.precisions) {
      for (const rule of [undefined, ...rules]) {
        const name = rule?.name ?? EXACT;
        if (measurer.has('firstToken', {length, rule: name, precision})) continue;
        await measurer.step(`first token, ${name} ${precision} ${length}`, async () => {
          const ids = measurer.tokens(options.texts[0].name, length);
          const times: number[] = [];
          for (let i = -WARM_UPS; i < RUNS; ++i) {
            const {firstTokenMs} = await generate(model, ids, {
              attend: (_, query, key, value) =>
                rule
                  ? pbsAttention(query, key, value, {...rule.options, precision})
                  : flashAttention(query, key, value, {precision}),
              maxTokens: 1,
            });
            if (i >= 0) times.push(firstTokenMs);
          }
          const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => rounded(quantile(times, part)));
          run.firstToken.push({length, rule: name, precision, median: middle, low, high, runs: RUNS});
        });
      }
    }
  }
}
