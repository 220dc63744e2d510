import {
  type AttentionSampleCollector,
  collectAttentionSamples,
  type TunedAttention,
  tunePBSAttention,
} from '../../src/index';
import {mean} from '../statistics';
import {compareRules} from './compare_rules';
import type {Measurer} from './measurer';
import {rounded, type TunedRow} from './results';
import {inEveryLayer, type LayerRules, parseRule} from './rules';

/**
 * Relative L1 errors of a layer's output that the tuner is allowed. Less its margin of a fifth, they are what the default rule
 * comes to, mean over layers, at thresholds from 0.93 to 0.87 (SmolLM2-135M, 8,192 tokens): choices lie between the fixed rules.
 */
export const ALLOWED = [0.015, 0.022, 0.032, 0.045];

/** The default rule with the same threshold in all layers. */
export const FIXED = [0.85, 0.88, 0.9, 0.92, 0.94].map((threshold) => parseRule(`default@${threshold}`)!);

/**
 * Whether what the tuner chooses for each layer on the first text at the least length holds on the other texts at the greatest:
 * exact attention against the choices, and against fixed rules.
 */
export async function tuner(measurer: Measurer): Promise<void> {
  const {options, run} = measurer;
  const [tunedText, ...texts] = options.texts.map(({name}) => name);
  const tunedLength = Math.min(...options.lengths);
  const length = Math.max(...options.lengths);
  if (texts.length === 0) {
    measurer.skip('tuner', '--texts has one; accepted: two or more, the first to tune on');
    return;
  }
  await tuneLayers(measurer, tunedText, tunedLength);
  const tuned = run.tuned.filter((row) => row.text === tunedText && row.length === tunedLength);
  const rules = [...FIXED.map(inEveryLayer), ...tuned.map(tunedRules)];
  for (const text of texts) {
    const pair = {tunedText, tunedLength};
    const pending = rules.filter(({name: rule}) => !measurer.has('tuner', {...pair, length, text, rule}));
    if (pending.length === 0) continue;
    await compareRules(measurer, length, text, pending, (row) => run.tuner.push({...pair, ...row}));
  }
}

/** What the tuner chose, as what a model attends by. */
function tunedRules({allowed, layers}: TunedRow): LayerRules {
  const name = `tuned@${allowed}`;
  return {name, ofLayer: (layer) => ({name, options: layers[layer].options, isOracle: false})};
}

/** Tunes every layer within each error on what it attends with while the model reads a text with exact attention. */
async function tuneLayers(measurer: Measurer, text: string, length: number): Promise<void> {
  const {model, run} = measurer;
  const pending = ALLOWED.filter((allowed) => !measurer.has('tuned', {length, text, allowed}));
  if (pending.length === 0) return;
  const collector = collectAttentionSamples();
  try {
    await measurer.step(`samples ${text} ${length}`, () => collect(measurer, text, length, collector));
    if (collector.samples.length < model.config.layers) return;
    for (const allowed of pending) {
      await measurer.step(`tuned@${allowed} ${text} ${length}`, async () => {
        const tuned = await tunePBSAttention(collector.samples, {maxRelativeL1: allowed});
        const row = tunedRow(length, text, allowed, tuned);
        run.tuned.push(row);
        const thresholds = row.layers.map(({options}) => options.threshold!);
        measurer.log(
          `        density ${row.density.toFixed(3)}, thresholds ${Math.min(...thresholds)} to ${Math.max(...thresholds)}`,
        );
      });
    }
  } finally {
    collector.dispose();
  }
}

async function collect(
  {model, tokens}: Measurer,
  text: string,
  length: number,
  collector: AttentionSampleCollector,
): Promise<void> {
  const {logits, cache} = await model.prefill(tokens(text, length), {
    attend: (_layer, query, key, value) => collector.attention(query, key, value),
  });
  logits.dispose();
  cache.dispose();
}

function tunedRow(length: number, text: string, allowed: number, tuned: readonly TunedAttention[]): TunedRow {
  return {
    ...{length, text, allowed},
    density: rounded(mean(tuned.map(({chosen}) => chosen.density))),
    layers: tuned.map(({options, chosen}) => ({
      options,
      density: rounded(chosen.density),
      relativeL1: rounded(chosen.relativeL1),
    })),
  };
}
