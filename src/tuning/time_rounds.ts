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

/** Calls in a row should take so long, in milliseconds, and as long as the wait for them, up to the second of these. */
const [calledFor, calledForAtMost] = [3, 6];
const mostCalls = 16;

/**
 * Sets how many calls of each case are timed in a row, by a first look at each. The first case stays one call; the second, the same call, tells
 * with it what a wait takes: where one of a millisecond were taken for a call's own, a fast device would seem slow.
 *
 * @returns milliseconds that a round is expected to take; what a clock that stands still tells counts for nothing.
 */
export async function chooseCalls(clock: Clock, cases: readonly TimedCase[], signal?: AbortSignal): Promise<number> {
  let expected = 0;
  let launch = {call: 0, wait: 0};
  for (const [index, timed] of cases.entries()) {
    signal?.throwIfAborted();
    await timeCase(clock, timed);
    const one = await timeCase(clock, timed);
    if (!(one > 0)) continue;
    if (index === 1) launch = fitLaunch(one, await timeCase(clock, {...timed, calls: lookedAt}), lookedAt);
    const call = Math.max(one - launch.wait, launch.call);
    if (index > 0) {
      const lasting = Math.max(calledFor, Math.min(launch.wait, calledForAtMost));
      timed.calls = Math.min(mostCalls, Math.max(index === 1 ? 2 : 1, Math.round(lasting / call) || 1));
    }
    expected += one + (timed.calls - 1) * call;
  }
  return expected;
}

/**
 * Times the cases in turn, round after round, so that what slows the device for a while slows all of them.
 *
 * @param budget milliseconds: no round is begun that would end after it, but for the first.
 * @param expected milliseconds that a round takes.
 * @param isEnough asked after a round whether what there is says something.
 * @returns medians of the times in milliseconds, in the order of the cases; NaN where no clock told anything.
 */
export async function timeRounds(
  clock: Clock,
  cases: readonly TimedCase[],
  {budget, expected, isEnough, signal}: RoundLimits,
): Promise<number[]> {
  const samples: number[][] = cases.map(() => []);
  const medians = () => samples.map(medianOfTimes);
  let longest = expected;
  const begin = clock.now();
  for (let round = 0; round < mostRounds; ++round) {
    const start = clock.now();
    if (round > 0 && !(start - begin + longest <= budget)) break;
    for (const [index, timed] of cases.entries()) {
      signal?.throwIfAborted();
      samples[index].push(await timeCase(clock, timed));
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
  isEnough: (medians: number[]) => boolean;
  signal?: AbortSignal;
}

/** Of the times that can be: a clock that was set, or stood still, gives others. The lower of two: what disturbs adds time. */
export function medianOfTimes(samples: readonly number[]): number {
  const times = samples.filter((ms) => Number.isFinite(ms) && ms > 0).sort((a, b) => a - b);
  return times.length === 0 ? NaN : times[(times.length - 1) >> 1];
}
