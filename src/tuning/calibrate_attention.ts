import {PBSAttention} from '../attention/attention_kernels.js';
import type {CalibratedConstants} from '../attention/device_costs.js';
import {constantsInUse, useConstants} from '../attention/device_costs.js';
import {backendCosts, backendDevice} from '../kernels/backend_costs.js';
import {check, checkOwnKernels, describe} from '../ops/check_arguments.js';
import {backend, getBackend} from '@tensorflow/tfjs-core';
import type {AttentionCalibration, CalibratedBackend} from './attention_calibration.js';
import type {CalibrationSize} from './calibration_cases.js';
import {CalibrationInputs, computed, largestSize, launchSize, longestCall, thresholds} from './calibration_cases.js';
import type {FittedPrecision, PrecisionTimes} from './fit_calibration.js';
import {fitPrecision} from './fit_calibration.js';
import type {CaseTimes, Clock, TimedCase} from './time_rounds.js';
import {chooseCalls, shortestCall, timeCase, timeChain, timeOfCall, timeRounds} from './time_rounds.js';

const op = 'calibrateAttention';

/** Of measuring, in milliseconds. */
const budget = 300;
/** Clocks of a GPU that was idle take some hundred milliseconds of work to rise; until then launching seems cheap beside arithmetic. */
const warmUpTime = 600;
/** Before a size is looked at: with sleeping clocks a fast device seems to be a slow one. */
const warmUpOfSize = 100;
const callsOfWarmUp = 4;
/** So many calls last longer than a wait for the device. */
const callsOfLook = 32;
/** Recording a call takes less, in milliseconds. */
const longestRecording = 1;
/** A call that takes no more than so many times what this thread takes for it may have left the device idle. */
const mostOfRecording = 1.25;
/** Milliseconds of a call at the least, where the clock is too coarse to tell. */
const leastTime = 1e-3;

/** Options of {@link calibrateAttention}. */
export interface CalibrationOptions {
  /** Stops between two measurements: it rejects with the signal's reason, and frees what it holds. */
  signal?: AbortSignal;
}

const pageClock: Clock = {now: () => performance.now(), computed};

/**
 * Measures on the active backend what the choice between exact and block-sparse attention (`auto`) goes by: what exact attention,
 * blocks and the choice of blocks take for their work, and what launching takes; in float16 too where the device multiplies that.
 * At most 300 ms after its programs are compiled and the device was at work for a second, so that its clocks have risen; more only where a single round of the smallest calls takes longer. It holds up to 300 MB on the device meanwhile.
 *
 * ```js
 * const calibration = await calibrateAttention();
 * useAttentionCalibration(calibration);
 * localStorage.setItem('attention', JSON.stringify(calibration));
 * ```
 *
 * Calls that run meanwhile are measured with it: best done before the work. Times are medians of rounds in which the cases take turns, so that what disturbs for a while disturbs all alike.
 *
 * @param options see {@link CalibrationOptions}.
 * @returns a plain object for JSON; it is not used until {@link useAttentionCalibration} gets it.
 * @throws Error (rejects) if the active backend has no kernels of its own, if the clock tells nothing, or as {@link pbsAttention} does.
 */
export async function calibrateAttention(options?: CalibrationOptions): Promise<AttentionCalibration> {
  const isObject = options === undefined || (typeof options === 'object' && options !== null);
  check(isObject, op, 'options', `got ${describe(options)}`, 'an object of options');
  for (const name of Object.keys(options ?? {})) check(name === 'signal', op, 'options', `got '${name}'`, 'signal');
  return measure(pageClock, options?.signal);
}

/** @param clock tells the times: a test's own, too. */
export async function measure(clock: Clock, signal?: AbortSignal): Promise<AttentionCalibration> {
  checkOwnKernels(op, PBSAttention);
  const measured = backend();
  const name = getBackend() as CalibratedBackend;
  const {adapter} = backendDevice();
  // What stands in for disturbed times is of the class, not of a calibration before.
  const before = constantsInUse(measured);
  useConstants(measured);
  const inputs: CalibrationInputs[] = [];
  try {
    const small = new CalibrationInputs(launchSize);
    inputs.push(small);
    const launch = await shortestTime(clock, small, signal);
    const large = new CalibrationInputs(await largestSize(launch, (size) => timeOfSize(clock, size, signal)));
    inputs.push(large);
    const constants = await measureConstants(clock, small, large, signal);
    check(measured === backend(), op, 'backend', 'got another one meanwhile', 'the same backend until it is done');
    return {version: 1, backend: name, adapter, date: new Date().toISOString(), constants};
  } finally {
    inputs.forEach((one) => one.dispose());
    useConstants(measured, before);
  }
}

async function timeOfSize(clock: Clock, size: CalibrationSize, signal?: AbortSignal): Promise<number> {
  const inputs = new CalibrationInputs(size);
  try {
    const exact = {run: () => inputs.exact(), calls: callsOfWarmUp};
    await warmUp(clock, [exact], {lasting: warmUpOfSize, signal});
    const ms = await shortestTime(clock, inputs, signal);
    if (!(ms < longestRecording)) return ms;
    // Where the device waits for this thread, what a call takes says nothing of its size.
    const {all, recorded} = await timeChain(clock, {...exact, calls: callsOfLook});
    return recorded > all / 2 ? leastTime : ms;
  } finally {
    inputs.dispose();
  }
}

/** Of exact attention. */
const shortestTime = (clock: Clock, inputs: CalibrationInputs, signal?: AbortSignal): Promise<number> =>
  shortestCall(clock, () => inputs.exact(), {longest: longestCall, signal});

/** Keeps the device at work, with the calls that are to be timed, until its clocks have risen and the engine has compiled their code. */
async function warmUp(
  clock: Clock,
  cases: readonly TimedCase[],
  {lasting, signal}: {lasting: number; signal?: AbortSignal},
): Promise<void> {
  const start = clock.now();
  while (clock.now() - start < lasting) {
    for (const timed of cases) {
      signal?.throwIfAborted();
      // Where the time is not told, `fitPrecision` says so.
      if (!((await timeCase(clock, timed)) > 0)) return;
      if (!(clock.now() - start < lasting)) return;
    }
  }
}

async function measureConstants(
  clock: Clock,
  small: CalibrationInputs,
  large: CalibrationInputs,
  signal?: AbortSignal,
): Promise<CalibratedConstants> {
  const dims = {headDim: 64, valueDim: 64};
  const costsOf = (precision: 'float32' | 'float16') => backendCosts(dims, precision);
  const hasFloat16 = costsOf('float16').multiplyAdds !== costsOf('float32').multiplyAdds;
  const precisions = hasFloat16 ? (['float32', 'float16'] as const) : (['float32'] as const);
  const cases: TimedCase[] = [
    {run: () => small.exact(), calls: 1},
    {run: () => small.sparse(thresholds.few), calls: 1},
    ...precisions.flatMap((precision) => [
      {run: () => large.exact(precision), calls: 1},
      {run: () => large.sparse(thresholds.few, precision), calls: 1},
      {run: () => large.sparse(thresholds.many, precision), calls: 1},
    ]),
  ];
  // For warming up, on clocks that may sleep; and again for what counts.
  await chooseCalls(clock, cases, signal);
  await warmUp(clock, cases, {lasting: warmUpTime, signal});
  const expected = await chooseCalls(clock, cases, signal);
  check(expected > 0, op, 'times', `got ${expected} ms for all calls together`, 'a clock that goes on');
  const kept = {few: await large.kept(thresholds.few), many: await large.kept(thresholds.many)};

  const fit = (times: CaseTimes[]) => {
    const [{all, recorded}, {calls}] = [times[0], cases[0]];
    const exactLaunch = recorded || leastTime;
    const sparseLaunch = Math.max(exactLaunch, times[1].recorded || 0);
    const wait = Math.max(0, all - calls * timeOfCall(times[0], calls, 0)) || 0;
    const perCall = (index: number) => timeOfCall(times[index], cases[index].calls, wait);
    const fitted = precisions.map((precision, index) => {
      const first = 2 + 3 * index;
      const [exact, few, many] = [0, 1, 2].map((i) => perCall(first + i));
      // On a processor recording is all there is.
      const ofFew = times[first + 1].recorded;
      const fewIsRecording = few < mostOfRecording * ofFew && ofFew < 2 * sparseLaunch;
      const of: PrecisionTimes = {exact, few, many, fewIsRecording};
      return fitPrecision(of, {geometry: large.geometry, ...kept}, costsOf(precision), sparseLaunch);
    });
    return {exactLaunch, sparseLaunch, fitted};
  };
  const isEnough = (times: CaseTimes[]) => tryFit(() => fit(times).fitted.every(({isPlausible}) => isPlausible));
  const times = await timeRounds(clock, cases, {budget, expected, isEnough, signal});
  const {exactLaunch, sparseLaunch, fitted} = fit(times);
  const [float32, float16] = fitted.map(({multiplyAdds, sparseFactor}: FittedPrecision) => ({
    multiplyAdds,
    sparseFactor,
  }));
  return {
    exactLaunch,
    sparseLaunch,
    sampleMultiplyAdd: fitted[0].sampleMultiplyAdd,
    float32,
    ...(float16 && {float16}),
  };
}

function tryFit(fit: () => boolean): boolean {
  try {
    return fit();
  } catch {
    return false;
  }
}
