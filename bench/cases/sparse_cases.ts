import {concat} from '@tensorflow/tfjs-core';
import {pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {timeCalls} from '../call_timing';
import {type Inputs, LONGEST_CAPTURE, openReader} from '../captured_attention';
import type {Call} from '../device';
import {exactAttention, type Precision, sparseOptions} from '../our_attention';
import {type SparseResult, type Stage, STAGES} from '../results';
import {type HeadShape, shapeName} from '../shapes';
import {stageOf} from '../stages';
import {relativeL1} from '../statistics';
import {syntheticAttention} from '../synthetic_attention';
import type {CaseRunner} from './case_runner';
import {disposeInputs, uploadInputs} from './inputs';

const CAPTURED_LENGTHS = [4096, 8192, 16_384];
const STACKED_LENGTHS = [2048, 4096, 8192];
const SYNTHETIC_LENGTHS = [32_768, 65_536, 131_072];
const SYNTHETIC_SHAPE: HeadShape = {heads: 8, keyValueHeads: 8, headDim: 64};

/** Longest output that is read back to compare it. */
const LONGEST_COMPARED = 16_384;

/** Each layer of the model by itself. */
export function timeCaptured(runner: CaseRunner): Promise<void> {
  return withCaptures(runner, CAPTURED_LENGTHS, async (captured) => {
    for (const layer of runner.options.layers.filter((index) => index < captured.length)) {
      await timeBoth(runner, captured[layer], 'captured', layer);
    }
  });
}

/** The layers' heads in one call: what a layer of a larger model is to the device. */
export function timeStacked(runner: CaseRunner): Promise<void> {
  return withCaptures(runner, STACKED_LENGTHS, async (captured) => {
    const layers = captured.filter((_, index) => runner.options.layers.includes(index));
    if (layers.length === 0) return;
    const stack = (part: keyof Inputs) =>
      concat(
        layers.map((inputs) => inputs[part]),
        1,
      );
    const stacked = {query: stack('query'), key: stack('key'), value: stack('value')};
    await timeBoth(runner, stacked, 'stacked', 0);
    disposeInputs(stacked);
  });
}

/** Runs `body` on what the layers of the model see, length by length. */
async function withCaptures(
  runner: CaseRunner,
  defaultLengths: number[],
  body: (captured: Inputs[]) => Promise<void>,
): Promise<void> {
  const {options, place} = runner;
  const lengths = (options.lengths ?? defaultLengths).filter((length) => length <= LONGEST_CAPTURE);
  if (lengths.length === 0) return;
  const reader = await openReader(place.readFile);
  for (const length of lengths) {
    let captured: Inputs[] = [];
    await runner.case(`capture ${length}`, async () => {
      captured = await reader.capture(length);
      return [];
    });
    await body(captured);
    captured.forEach(disposeInputs);
  }
  reader.dispose();
}

export async function timeSynthetic(runner: CaseRunner): Promise<void> {
  const {options, device} = runner;
  for (const length of options.lengths ?? SYNTHETIC_LENGTHS.filter((x) => x <= device.longest)) {
    const values = syntheticAttention(SYNTHETIC_SHAPE, length, 17);
    const inputs = uploadInputs(SYNTHETIC_SHAPE, length, values);
    await timeBoth(runner, inputs, 'synthetic', 0);
    disposeInputs(inputs);
  }
}

async function timeBoth(runner: CaseRunner, inputs: Inputs, data: SparseResult['data'], layer: number) {
  const length = inputs.query.shape[2];
  for (const precision of runner.device.precisions) {
    const name = `${data} ${length}${data === 'captured' ? ` layer ${layer}` : ''} ${precision}`;
    const unavailable = runner.device.whyNot(precision);
    if (unavailable) {
      // Said once by the exact cases.
      continue;
    }
    await runner.case(name, async () => [await compare(runner, inputs, precision, data, layer)]);
  }
}

async function compare(
  runner: CaseRunner,
  inputs: Inputs,
  precision: Precision,
  data: SparseResult['data'],
  layer: number,
): Promise<SparseResult> {
  const {options, device} = runner;
  const {query, key, value} = inputs;
  const [, heads, length, headDim] = query.shape;
  const planOptions = sparseOptions(options.threshold);
  const pbsOptions = precision === 'float32' ? planOptions : {...planOptions, precision};
  const exactCall = () => exactAttention(inputs, precision);
  const sparseCall = () => pbsAttention(query, key, value, pbsOptions);

  const plan = pbsAttentionPlan(query, key, planOptions);
  const density = await pbsAttentionDensity(plan, planOptions);
  plan.keyIndices.dispose();
  plan.blockMask.dispose();
  return {
    kind: 'sparse',
    data,
    shape: shapeName({heads, keyValueHeads: key.shape[1], headDim}),
    length,
    layer,
    precision,
    threshold: options.threshold,
    density,
    exact: await timeCalls(device.timer, exactCall, options.caseSeconds / 2),
    sparse: await timeCalls(device.timer, sparseCall, options.caseSeconds / 2),
    ...(await stageTimes(runner, exactCall, sparseCall)),
    difference: length > LONGEST_COMPARED ? undefined : await difference(sparseCall, exactCall),
  };
}

async function stageTimes(
  {device: {timer}, options}: CaseRunner,
  exactCall: Call,
  sparseCall: Call,
): Promise<Pick<SparseResult, 'exactGpu' | 'stages' | 'programs'>> {
  const seconds = options.caseSeconds / 4;
  const exact = await timer.timePrograms(exactCall, seconds);
  const sparse = await timer.timePrograms(sparseCall, seconds);
  if (!exact || !sparse) return {};
  const programs = sparse.map(({program, gpu}) => ({program, stage: stageOf(program), gpu}));
  const stages: Partial<Record<Stage, number>> = {};
  for (const stage of STAGES) {
    const own = programs.filter((program) => program.stage === stage);
    if (own.length > 0) stages[stage] = own.reduce((sum, {gpu}) => sum + gpu.median, 0);
  }
  return {exactGpu: exact.reduce((sum, {gpu}) => sum + gpu.median, 0), stages, programs};
}

async function difference(sparseCall: Call, exactCall: Call): Promise<number> {
  const outputs = [sparseCall(), exactCall()];
  const [sparse, exact] = await Promise.all(outputs.map((output) => output.data()));
  outputs.forEach((output) => output.dispose());
  return relativeL1(sparse, exact);
}
