import {version_core} from '@tensorflow/tfjs-core';
import {registerDevice} from '../device';
import type {CaseOptions, Group} from '../options';
import type {Run} from '../results';
import {compareOutputs} from './agreement_cases';
import {CaseRunner, type Place} from './case_runner';
import {timeComposed, timeOnnx, timeOurs} from './exact_cases';
import {measureMemory} from './memory_cases';
import {timeCaptured, timeSynthetic} from './sparse_cases';

const GROUP_CASES: Record<Group, (runner: CaseRunner) => Promise<void>> = {
  agreement: compareOutputs,
  ours: timeOurs,
  ort: timeOnnx,
  composed: timeComposed,
  captured: timeCaptured,
  synthetic: timeSynthetic,
  memory: measureMemory,
};

/** Runs the cases that the options name. The same in Node and in a page. */
export async function runCases(
  options: CaseOptions,
  place: Place,
  about: Pick<Run, 'command' | 'host' | 'versions'>,
): Promise<Run> {
  const device = await registerDevice(options.without);
  const {info, backend} = device;
  const run: Run = {
    date: new Date().toISOString(),
    ...about,
    adapter: [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(', '),
    features: [...backend.device.features].sort(),
    versions: {'@tensorflow/tfjs-core': version_core, ...about.versions},
    results: [],
    skipped: [],
    errors: [],
  };
  place.log(`${run.host} on ${run.adapter}; ${run.features.join(', ')}`);
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
