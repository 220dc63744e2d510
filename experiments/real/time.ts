import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import type {Call, Timer} from '../../bench/device';
import type {Precision} from '../../bench/our_attention';
import type {Stage} from '../../bench/results';
import {stageOf} from '../../bench/stages';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {mean} from '../statistics';
import type {Measurer} from './measurer';
import {rounded, type TimeRow} from './results';
import type {Rule} from './rules';

/** About how long one call is timed; three rounds at least. */
const SECONDS = 0.1;

/** GPU time of exact attention and of each rule by stage, in each precision, on layers of the model over each text. */
export async function time(measurer: Measurer): Promise<void> {
  const {options, device, run} = measurer;
  const {timer} = device;
  if (timer === undefined) {
    measurer.skip('time', 'the device has no timestamps');
    return;
  }
  for (const length of options.lengths) {
    for (const text of options.texts) {
      const pending = device.precisions.flatMap((precision) =>
        options.rules
          // What the oracle takes says nothing.
          .filter(({isOracle}) => !isOracle)
          .filter(({name}) => !measurer.has('time', {length, text: text.name, rule: name, precision}))
          .map((rule) => ({rule, precision})),
      );
      if (pending.length === 0) continue;
      await measurer.step(`times ${text.name} ${length}`, async () => {
        const captured = await captureLayers(measurer, measurer.tokens(text.name, length), options.timedLayers);
        try {
          const rows = await timeRules(timer, captured, pending);
          run.time.push(...rows.map((row) => ({length, text: text.name, ...row})));
        } finally {
          captured.forEach(({inputs}) => tf.dispose([inputs.query, inputs.key, inputs.value]));
        }
      });
    }
  }
}

interface CapturedLayer {
  layer: number;
  inputs: Inputs;
}

type Times = Partial<Record<Stage, number>>;

async function timeRules(
  timer: Timer,
  captured: readonly CapturedLayer[],
  pending: ReadonlyArray<{rule: Rule; precision: Precision}>,
): Promise<Array<Omit<TimeRow, 'length' | 'text'>>> {
  // Timing waits for the device between calls, so its clocks fall; what is timed first would look slow.
  await stagesOf(timer, () => exact(captured[0].inputs, 'float32'));
  const exactTimes = new Map<Precision, number>();
  const rows: Array<Omit<TimeRow, 'length' | 'text'>> = [];
  for (const {rule, precision} of pending) {
    if (!exactTimes.has(precision)) {
      const times: Times[] = [];
      for (const {inputs} of captured) times.push(await stagesOf(timer, () => exact(inputs, precision)));
      exactTimes.set(precision, mean(times.map(total)));
    }
    const times: Times[] = [];
    for (const {inputs} of captured) {
      const {query, key, value} = inputs;
      times.push(
        await stagesOf(timer, () => pbsAttention(query, key, value, {...rule.options, precision, auto: false})),
      );
    }
    const stages = [...new Set(times.flatMap((time) => Object.keys(time) as Stage[]))];
    rows.push({
      rule: rule.name,
      precision,
      layers: captured.map(({layer}) => layer),
      exact: rounded(exactTimes.get(precision)!),
      total: rounded(mean(times.map(total))),
      stages: Object.fromEntries(stages.map((stage) => [stage, rounded(mean(times.map((time) => time[stage] ?? 0)))])),
    });
  }
  return rows;
}

const exact = ({query, key, value}: Inputs, precision: Precision) => flashAttention(query, key, value, {precision});

const total = (times: Times) => Object.values(times).reduce((sum, ms) => sum + ms, 0);

async function stagesOf(timer: Timer, call: Call): Promise<Times> {
  const programs = await timer.timePrograms(call, SECONDS);
  if (programs === undefined) throw new Error('the device has no timestamps');
  const times: Times = {};
  for (const {program, gpu} of programs) {
    const stage = stageOf(program);
    times[stage] = (times[stage] ?? 0) + gpu.median;
  }
  return times;
}

/**
 * Query, key and value of some layers while the model reads tokens with exact attention: those that stand at even shares of all
 * layers by the density of the default rule, on which time depends, so that their mean is that of all. The caller disposes
 * them.
 */
async function captureLayers({model}: Measurer, ids: readonly number[], count: number): Promise<CapturedLayer[]> {
  const all: CapturedLayer[] = [];
  const counts: tf.Tensor[] = [];
  const hold = (x: tf.Tensor4D) => tf.keep(tf.clone(x));
  const free = (layers: readonly CapturedLayer[]) =>
    layers.forEach(({inputs}) => tf.dispose([inputs.query, inputs.key, inputs.value]));
  try {
    const {logits, cache} = await model.prefill(ids, {
      attention: 'flash',
      onAttention: (layer, query, key, value) => {
        all.push({layer, inputs: {query: hold(query), key: hold(key), value: hold(value)}});
        counts.push(tf.keep(tf.reshape(tf.sum(pbsAttentionPlan(query, key).blockMask), [1])));
      },
    });
    logits.dispose();
    cache.dispose();
    const joined = tf.concat(counts);
    const kept = await joined.data();
    joined.dispose();
    const byDensity = [...all].sort((a, b) => kept[a.layer] - kept[b.layer]);
    const layers = Math.min(count, all.length);
    const chosen = Array.from({length: layers}, (_, i) => byDensity[Math.floor(((i + 0.5) / layers) * all.length)]);
    free(all.filter((layer) => !chosen.includes(layer)));
    return chosen;
  } catch (error) {
    free(all);
    throw error;
  } finally {
    tf.dispose(counts);
  }
}
