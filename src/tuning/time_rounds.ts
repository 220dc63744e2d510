import type {Tensor} from '@tensorflow/tfjs-core';
import {dispose, tidy} from '@tensorflow/tfjs-core';
import {fitLaunch} from './fit_calibration.js';

/** A call that is timed, so many in a row. */
export interface TimedCase {
  run: () => Tensor;
  calls: number;
}

/** How times are taken; tests have their own. */
export interface Clock {
  now(): number;
  /** Waits until a tensor is computed. */
  computed(x: Tensor): Promise<void>;
}

/** Fewest rounds whose medians are believed if there is time for them, and the most that are taken. */
const fewestRounds = 3;
const mostRounds = 9;

/** Milliseconds of the calls in a row, with the wait for the last. */
export async function timeCase(clock: Clock, {run, calls}: TimedCase): Promise<number> {
  const start = clock.now();
  for (let i = 1; i < calls; ++i) dispose(tidy(run));
  const last = tidy(run);
  try {
    await clock.computed(last);
    return clock.now() - start;
  } finally {
    last.dispose();
  }
}

/** Calls in a row of a first look, and how often there is one. */
const lookedAt = 4;
const looks = 3;

/**
 * Milliseconds of a call, from a first look. Without the wait for it, which may be a hundred times as long, unless a call with that takes longer
 * than `longest`; the first call compiles.
 */
export async function shortestCall(
  clock: Clock,
  run: () => Tensor,
  {longest, signal}: {longest: number; signal?: AbortSignal},
): Promise<number> {
  const shortest = async (calls: number) => {
    let least = Infinity;
    for (let i = 0; i < looks; ++i) {
      signal?.throwIfAborted();
      least = Math.min(least, await timeCase(clock, {run, calls}));
      if (!(least > 0 && least < longest)) break;
    }
    return least;
  };
  signal?.throwIfAborted();
  await timeCase(clock, {run, calls: 1});
  const one = await shortest(1);
  return one > 0 && one < longest ? fitLaunch(one, await shortest(lookedAt), lookedAt).call : one;
}

/** Calls in a row should take so long, in milliseconds: some times as long as a wait for the device differs from another. */
const calledFor = 6;
const mostCalls = 64;

/**
 * Sets how many calls of each case are timed in a row, by a first look at each. The first case is the shortest, and tells
 * what a wait takes: it has several calls.
 *
 * @returns milliseconds that a round is expected to take; what a clock that stands still tells counts for nothing.
 */
export async function chooseCalls(clock: Clock, cases: readonly TimedCase[], signal?: AbortSignal): Promise<number> {
  let expected = 0;
  let launch: {call: number; wait: number} | undefined;
  for (const [index, timed] of cases.entries()) {
    signal?.throwIfAborted();
    const {run} = timed;
    await timeCase(clock, {run, calls: 1});
    const one = await timeCase(clock, {run, calls: 1});
    if (!(one > 0)) continue;
    launch ??= fitLaunch(one, await timeCase(clock, {run, calls: lookedAt}), lookedAt);
    const call = Math.max(one - launch.wait, launch.call);
    timed.calls = Math.max(index === 0 ? 2 : 1, Math.min(mostCalls, Math.round(calledFor / call)));
    expected += one + (timed.calls > 1 ? one + (timed.calls - 1) * call : 0);
  }
  return expected;
}

/** Milliseconds of one call and of the calls of a case in a row, each with a wait. */
export interface CaseTimes {
  one: number;
  several: number;
}

/**
 * Times the cases in turn, round after round, so that what slows the device for a while slows all of them.
 *
 * @param budget milliseconds: no round is begun that would end after it, but for the first.
 * @param expected milliseconds that a round takes.
 * @param isEnough asked after a round whether what there is says something.
 * @returns medians of the times, in the order of the cases; NaN where no clock told anything.
 */
export async function timeRounds(
  clock: Clock,
  cases: readonly TimedCase[],
  {budget, expected, isEnough, signal}: RoundLimits,
): Promise<CaseTimes[]> {
  const samples = cases.map(() => ({one: [] as number[], several: [] as number[]}));
  const medians = () =>
    samples.map(({one, several}) => ({one: medianOfTimes(one), several: medianOfTimes(several)}));
  let longest = expected;
  const begin = clock.now();
  for (let round = 0; round < mostRounds; ++round) {
    const start = clock.now();
    if (round > 0 && !(start - begin + longest <= budget)) break;
    for (const [index, {run, calls}] of cases.entries()) {
      signal?.throwIfAborted();
      const one = await timeCase(clock, {run, calls: 1});
      samples[index].one.push(one);
      samples[index].several.push(calls > 1 ? await timeCase(clock, {run, calls}) : one);
    }
    longest = Math.max(longest, clock.now() - start);
    // Half of the budget is for a second look.
    if (round + 1 >= fewestRounds && clock.now() - begin > budget / 2 && isEnough(medians())) break;
  }
  return medians();
}

export interface RoundLimits {
  budget: number;
  expected: number;
  isEnough: (medians: CaseTimes[]) => boolean;
  signal?: AbortSignal;
}

/** Of the times that can be: a clock that was set, or stood still, gives others. The lower of two: what disturbs adds time. */
export function medianOfTimes(samples: readonly number[]): number {
  const times = samples.filter((ms) => Number.isFinite(ms) && ms > 0).sort((a, b) => a - b);
  return times.length === 0 ? NaN : times[(times.length - 1) >> 1];
}
