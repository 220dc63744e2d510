import {
  calibrateAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
  useAttentionCalibration,
  type AttentionCalibration,
} from '../../src/index';
import {backendCosts, blockGeometry, defaultOptions, whyExact} from '../../src/internal';
import {timeCalls} from '../call_timing';
import type {Inputs} from '../captured_attention';
import {exactAttention, type Precision, sparseOptions} from '../our_attention';
import type {AutoResult, Basis} from '../results';
import {type HeadShape, shapeName} from '../shapes';
import {syntheticAttention} from '../synthetic_attention';
import type {CaseRunner} from './case_runner';
import {disposeInputs, uploadInputs} from './inputs';

const LENGTHS = [512, 1024, 2048, 4096, 8192, 16_384];

/** Whether `auto` takes the faster way, by length: as the library comes, and by a calibration of this device. */
export async function timeAuto(runner: CaseRunner): Promise<void> {
  const {options, device, run} = runner;
  const lengths = options.lengths ?? LENGTHS.filter((length) => length <= device.longest);
  const calibrations: Partial<Record<Basis, AttentionCalibration>> = {};
  await runner.case('auto: calibration', async () => {
    run.calibration = calibrations.calibration = calibrations.density = await calibrateAttention();
    calibrations.loaded = await besideLoad(runner, options.shapes[0], lengths[lengths.length >> 1], calibrateAttention);
    return [];
  });
  for (const shape of options.shapes) {
    for (const length of lengths) {
      const inputs = uploadInputs(shape, length, syntheticAttention(shape, length, 17));
      for (const precision of device.precisions.filter((name) => device.whyNot(name) === undefined)) {
        await runner.case(`auto ${shapeName(shape)} ${length} ${precision}`, async () => [
          {
            kind: 'auto',
            ...{shape: shapeName(shape), length, precision, threshold: options.threshold},
            ...(await compare(runner, inputs, precision, calibrations)),
          },
        ]);
      }
      disposeInputs(inputs);
    }
  }
}

async function compare(
  {options, device}: CaseRunner,
  inputs: Inputs,
  precision: Precision,
  calibrations: Partial<Record<Basis, AttentionCalibration>>,
): Promise<Pick<AutoResult, 'density' | 'exact' | 'sparse' | 'choices'>> {
  const {query, key, value} = inputs;
  const given = {...sparseOptions(options.threshold), precision};
  const plan = pbsAttentionPlan(query, key, given);
  const density = await pbsAttentionDensity(plan);
  plan.keyIndices.dispose();
  plan.blockMask.dispose();
  const geometry = blockGeometry(query, key, defaultOptions, value);
  const choice = (basis: Basis): 'exact' | 'sparse' => {
    useAttentionCalibration(calibrations[basis]);
    const rules = {...defaultOptions, threshold: options.threshold, auto: true};
    const known = basis === 'density' ? {...rules, expectedDensity: density} : rules;
    return whyExact(geometry, known, backendCosts(geometry, precision)) ? 'exact' : 'sparse';
  };
  const choices = {
    calibration: choice('calibration'),
    loaded: choice('loaded'),
    density: choice('density'),
    class: choice('class'),
  };
  return {
    density,
    exact: await timeCalls(device.timer, () => exactAttention(inputs, precision), options.caseSeconds / 2),
    sparse: await timeCalls(device.timer, () => pbsAttention(query, key, value, given), options.caseSeconds / 2),
    choices,
  };
}

/** Runs something while the device has other calls of a shape to do, one after the other. */
async function besideLoad<T>(
  {device}: CaseRunner,
  shape: HeadShape,
  length: number,
  run: () => Promise<T>,
): Promise<T> {
  const inputs = uploadInputs(shape, length, syntheticAttention(shape, length, 23));
  let isDone = false;
  const load = async () => {
    while (!isDone) {
      const output = exactAttention(inputs, 'float32');
      await device.timer.finish(output);
      output.dispose();
    }
  };
  const loading = load();
  try {
    return await run();
  } finally {
    isDone = true;
    await loading;
    disposeInputs(inputs);
  }
}
