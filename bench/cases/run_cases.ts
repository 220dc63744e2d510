import {version_core} from '@tensorflow/tfjs-core';
import type {Device} from '../device';
import type {CaseOptions, Group} from '../options';
import type {Run} from '../results';
import {compareOutputs} from './agreement_cases';
import {timeAuto} from './auto_cases';
import {CaseRunner, type Place} from './case_runner';
import {timeComposed, timeOnnx, timeOurs} from './exact_cases';
import {timeDecoding} from './decode_cases';
import {timeForms} from './form_cases';
import {timeGradients} from './gradient_cases';
import {measureMemory} from './memory_cases';
import {timeCaptured, timeStacked, timeSynthetic} from './sparse_cases';

const GROUP_CASES: Record<Group, (runner: CaseRunner) => Promise<void>> = {
  agreement: compareOutputs,
  ours: timeOurs,
  ort: timeOnnx,
  composed: timeComposed,
  forms: timeForms,
  captured: timeCaptured,
  stacked: timeStacked,
  synthetic: timeSynthetic,
  auto: timeAuto,
  decode: timeDecoding,
  gradient: timeGradients,
  memory: measureMemory,
};

/** Runs the cases that the options name, on the backend that was opened. The same in Node and in a page. */
export async function runCases(
  device: Device,
  options: CaseOptions,
  place: Place,
  about: Pick<Run, 'command' | 'host' | 'versions'>,
): Promise<Run> {
  const run: Run = {
    date: new Date().toISOString(),
    ...about,
    ...device.about,
    versions: {'@tensorflow/tfjs-core': version_core, ...about.versions},
    results: [],
    skipped: [],
    errors: [],
  };
  const traits = [...Object.entries(run.limits ?? {}).map((limit) => limit.join(' ')), ...run.features];
  place.log(`${run.host} on ${run.adapter}; ${traits.join(', ')}`);
  const runner = new CaseRunner(device, options, place, run);
  for (const group of options.only) {
    try {
      await GROUP_CASES[group](runner);
    } catch (error) {
      // What a group prepares can fail as well as its cases.
      runner.skip(group, (error as Error).message);
    }
  }
  place.save(run);
  return run;
}
