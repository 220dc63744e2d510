import {tidy} from '@tensorflow/tfjs-core';
import {timeCalls} from '../call_timing';
import {causalMask, composedAttention} from '../composed_attention';
import type {Call, SizeLimit} from '../device';
import {exactAttention, type Precision} from '../our_attention';
import type {ExactResult, Method} from '../results';
import {type HeadShape, queryBytes, scoreBytes, shapeName} from '../shapes';
import type {Timing} from '../statistics';
import type {CaseRunner} from './case_runner';
import {disposeInputs, randomInputs} from './inputs';

export const EXACT_LENGTHS = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072];
const SEED = 11;

/** A call this long keeps the GPU busy throughout: timestamps would only cost time. */
const LONG_MS = 250;

/** Predicts the next length from the last: exact attention is quadratic. */
class Forecast {
  private last?: {length: number; ms: number};

  note(length: number, timing: Timing): void {
    this.last = {length, ms: timing.median};
  }

  /** Why a case would take far too long: `calls` calls of it, in more than five times the usual time of a case. */
  tooLong(length: number, calls: number, caseSeconds: number): string | undefined {
    if (!this.last) return undefined;
    const seconds = ((length / this.last.length) ** 2 * this.last.ms) / 1000;
    const limit = 5 * caseSeconds;
    return calls * seconds > limit
      ? `about ${seconds.toFixed(1)} s a call: ${calls} calls pass the ${limit.toFixed(0)} s of a case`
      : undefined;
  }
}

/** Times one method over all shapes and lengths. */
async function timeMethod(
  runner: CaseRunner,
  method: Method,
  leastCalls: number,
  cannot: (shape: HeadShape, length: number) => string | undefined,
  time: (shape: HeadShape, length: number) => Promise<Pick<ExactResult, 'call' | 'gpu' | 'note'>>,
): Promise<void> {
  const {options, device} = runner;
  const lengths = options.lengths ?? EXACT_LENGTHS.filter((length) => length <= device.longest);
  for (const shape of options.shapes) {
    const forecast = new Forecast();
    for (const length of lengths) {
      const result: ExactResult = {kind: 'exact', shape: shapeName(shape), length, method};
      const reason = cannot(shape, length) ?? forecast.tooLong(length, leastCalls, options.caseSeconds);
      await runner.case(`exact ${method} ${shapeName(shape)} ${length}`, async () => {
        if (reason) return [{...result, note: reason}];
        const taken = await time(shape, length);
        if (taken.call) forecast.note(length, taken.call);
        return [{...result, ...taken}];
      });
    }
  }
}

function doesNotFit(bytes: number, what: string, limit: SizeLimit): string | undefined {
  return bytes > limit.bytes ? `${what} is ${(bytes / 2 ** 30).toFixed(2)} GiB, past ${limit.reason}` : undefined;
}

/** The library's method in a precision on the device that is measured. */
export function oursIn(precision: Precision, {run}: CaseRunner): Method {
  const float16 = run.features.includes('chromium-experimental-subgroup-matrix') ? 'ours-f16' : 'ours-f16-plain';
  return precision === 'float32' ? 'ours-f32' : float16;
}

export async function timeOurs(runner: CaseRunner): Promise<void> {
  const {timer, precisions, tensorLimit, whyNot} = runner.device;
  for (const precision of precisions) {
    const unavailable = whyNot(precision);
    await timeMethod(
      runner,
      oursIn(precision, runner),
      7,
      (shape, length) => unavailable ?? doesNotFit(queryBytes(shape, length), 'the query', tensorLimit),
      async (shape, length) => {
        const inputs = randomInputs(shape, length, SEED);
        try {
          const call = () => exactAttention(inputs, precision);
          const timed = await timeCalls(timer, call, runner.options.caseSeconds);
          return {call: timed, gpu: timed.median < LONG_MS ? await gpuTime(runner, call) : undefined};
        } finally {
          disposeInputs(inputs);
        }
      },
    );
  }
}

/** Time on the GPU of a call, all of its dispatches together. */
async function gpuTime(runner: CaseRunner, call: Call): Promise<Timing | undefined> {
  const programs = await runner.device.timer.timePrograms(call, runner.options.caseSeconds / 4);
  if (!programs) return undefined;
  const total = (of: 'median' | 'low' | 'high') => programs.reduce((sum, {gpu}) => sum + gpu[of], 0);
  return {...programs[0].gpu, median: total('median'), low: total('low'), high: total('high')};
}

export async function timeComposed(runner: CaseRunner): Promise<void> {
  const {timer, scoreLimit} = runner.device;
  await timeMethod(
    runner,
    'composed',
    7,
    (shape, length) => doesNotFit(scoreBytes(shape, length), 'the score matrix', scoreLimit),
    async (shape, length) => {
      const inputs = randomInputs(shape, length, SEED);
      const mask = causalMask(length);
      try {
        const call = () => tidy(() => composedAttention(inputs, mask));
        return {call: await timeCalls(timer, call, runner.options.caseSeconds)};
      } finally {
        disposeInputs(inputs);
        mask.dispose();
      }
    },
  );
}

/** Largest protocol buffer. Query, key and value are constants of the model. */
const LARGEST_MODEL = 2 ** 31 - 2 ** 16;

export async function timeOnnx(runner: CaseRunner): Promise<void> {
  const {place, run, options} = runner;
  const {askOnnx} = place;
  if (!askOnnx) {
    runner.skip('ort', 'onnxruntime-node does not run in a browser');
    return;
  }
  for (const dtype of ['float32', 'float16'] as const) {
    const bytes = dtype === 'float32' ? 4 : 2;
    let broken: string | undefined;
    await timeMethod(
      runner,
      dtype === 'float32' ? 'ort-f32' : 'ort-f16',
      14,
      (shape, length) => {
        const model = (bytes / 4) * queryBytes(shape, length) * (1 + (2 * shape.keyValueHeads) / shape.heads);
        if (model > LARGEST_MODEL) return `the model would be ${(model / 2 ** 30).toFixed(1)} GiB, past 2 GiB`;
        return broken;
      },
      async (shape, length) => {
        const request = {...shape, task: 'time', provider: 'webgpu', dtype, length, seed: SEED} as const;
        const answer = await askOnnx({...request, seconds: options.caseSeconds});
        run.versions['onnxruntime-node'] = answer.version;
        if ('timing' in answer) return {call: answer.timing};
        const note = 'failure' in answer ? answer.failure : 'no timing';
        // What fails for want of a package or a feature fails at every length.
        if (/does not support|Cannot find|not found/i.test(note)) broken = note;
        return {note};
      },
    );
  }
}
