import {tensor1d} from '@tensorflow/tfjs-core';
import type {FlashAttentionOptions} from '../../src/index';
import {timeInTurns} from '../call_timing';
import {exactAttention, type Precision} from '../our_attention';
import {randomFloats} from '../random_data';
import {type Form, FORMS, type FormResult} from '../results';
import {type HeadShape, queryBytes, shapeName} from '../shapes';
import type {CaseRunner} from './case_runner';
import {oursIn} from './exact_cases';
import {disposeInputs, randomInputs} from './inputs';

const LENGTH = 16_384;
const WINDOW_LENGTH = 32_768;
/** Of the tokens: 4,096 of 32,768. */
const WINDOW_SHARE = 1 / 8;
const SEED = 29;

/** What forms of exact causal attention cost beside the same without, and a window of ONNX Runtime beside its own. */
export async function timeForms(runner: CaseRunner): Promise<void> {
  const {options, device} = runner;
  const longest = (length: number) => Math.min(length, device.longest);
  for (const shape of options.shapes) {
    for (const precision of device.precisions) {
      const windowless = FORMS.filter((form) => form !== 'window');
      for (const length of options.lengths ?? [longest(LENGTH)])
        await timeOurs(runner, shape, length, precision, windowless);
      for (const length of options.lengths ?? [longest(WINDOW_LENGTH)]) {
        await timeOurs(runner, shape, length, precision, ['window']);
        await timeOnnxWindow(runner, shape, length, precision);
      }
    }
  }
}

async function timeOurs(
  runner: CaseRunner,
  shape: HeadShape,
  length: number,
  precision: Precision,
  forms: readonly Form[],
): Promise<void> {
  const {timer, tensorLimit, whyNot} = runner.device;
  const about = {kind: 'form', shape: shapeName(shape), length, method: oursIn(precision, runner)} as const;
  await runner.case(`forms ${about.method} ${about.shape} ${length}: ${forms.join(', ')}`, async () => {
    const tooLarge =
      queryBytes(shape, length) > tensorLimit.bytes ? `the query is past ${tensorLimit.reason}` : undefined;
    const note = whyNot(precision) ?? tooLarge;
    if (note) return forms.map((form) => ({...about, form, note}));
    const inputs = randomInputs(shape, length, SEED);
    const sinks = tensor1d(randomFloats(shape.heads, SEED));
    // The slopes of the paper, for a power of two heads.
    const alibiSlopes = tensor1d(
      Array.from({length: shape.heads}, (_, head) => 2 ** ((-8 * (head + 1)) / shape.heads)),
    );
    // The cap of Gemma 2.
    const given: Record<Form, FlashAttentionOptions> = {
      sinks: {sinks},
      alibiSlopes: {alibiSlopes},
      softCap: {softCap: 50},
      window: {window: windowOf(length)},
    };
    try {
      const calls = [undefined, ...forms.map((form) => given[form])].map(
        (form) => () => exactAttention(inputs, precision, form),
      );
      const [plain, ...timings] = await timeInTurns(timer, calls, runner.options.caseSeconds);
      return forms.map((form, i): FormResult => ({...about, form, call: timings[i], plain}));
    } finally {
      disposeInputs(inputs);
      sinks.dispose();
      alibiSlopes.dispose();
    }
  });
}

async function timeOnnxWindow(runner: CaseRunner, shape: HeadShape, length: number, dtype: Precision): Promise<void> {
  const {place, options, run} = runner;
  const {askOnnx} = place;
  if (!askOnnx) return;
  const method = dtype === 'float32' ? 'ort-f32' : 'ort-f16';
  const about = {kind: 'form', shape: shapeName(shape), length, method, form: 'window'} as const;
  await runner.case(`forms ${method} ${about.shape} ${length}: window`, async () => {
    const request = {
      ...shape,
      task: 'time',
      provider: 'webgpu',
      dtype,
      length,
      seed: SEED,
      seconds: options.caseSeconds,
    } as const;
    const answers = [await askOnnx({...request, window: windowOf(length)}), await askOnnx(request)];
    run.versions['onnxruntime-node'] = answers[0].version;
    const [call, plain] = answers.map((answer) => ('timing' in answer ? answer.timing : undefined));
    const failed = answers.find((answer) => 'failure' in answer);
    return [{...about, call, plain, note: failed && 'failure' in failed ? failed.failure : undefined}];
  });
}

const windowOf = (length: number) => Math.max(1, Math.floor(length * WINDOW_SHARE));
