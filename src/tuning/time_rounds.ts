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
export const timeCase = async (clock: Clock, timed: TimedCase): Promise<number> => (await timeChain(clock, timed)).all;

/** The same, and until the last call was recorded. */
export async function timeChain(clock: Clock, {run, calls}: TimedCase): Promise<{all: number; recorded: number}> {
  const start = clock.now();
  for (let i = 1; i < calls; ++i) dispose(tidy(run));
  const last = tidy(run);
  try {
    const recorded = clock.now() - start;
    await clock.computed(last);
    return {all: clock.now() - start, recorded};
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
  signal?.throwIfAborted();
  await timeCase(clock, {run, calls: 1});
  const one = await leastTime(clock, {run, calls: 1}, longest, signal);
  return one > 0 && one < longest ? (await lookAgain(clock, run, one, longest, signal)).call : one;
}

/** What a call takes and what a wait, of a call that takes `one` with it. */
const lookAgain = async (clock: Clock, run: () => Tensor, one: number, longest: number, signal?: AbortSignal) =>
  fitLaunch(one, await leastTime(clock, {run, calls: lookedAt}, longest, signal), lookedAt);

/** The least time of some looks; no more of them at a call that takes far longer than `longest`, which a single pause does not. */
async function leastTime(clock: Clock, timed: TimedCase, longest: number, signal?: AbortSignal): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < looks; ++i) {
    signal?.throwIfAborted();
    least = Math.min(least, await timeCase(clock, timed));
    if (!(least > 0 && least < 10 * longest)) break;
  }
  return least;
}

/** Calls in a row should take so long, in milliseconds: some times as long as a wait for the device differs from another. */
const calledFor = 8;
/** A call that takes longer is timed by itself: what a wait adds is little beside it. */
const longestOfSeveral = 20;
const mostCalls = 64;

/**
 * Of calls in a row, how many are timed by themselves as well, to be taken off: a few, since a device that was idle is slower at first. What
 * the first ones and the wait take is then in both times.
 */
export const fewerCalls = (calls: number): number => Math.ceil(calls / 3);

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
    const one = await leastTime(clock, {run, calls: 1}, longestOfSeveral, signal);
    if (!(one > 0)) continue;
    launch ??= await lookAgain(clock, run, one, longestOfSeveral, signal);
    const call = Math.max(one - launch.wait, launch.call);
    const isLong = index > 0 && call > longestOfSeveral;
    timed.calls = isLong ? 1 : Math.min(mostCalls, Math.max(2, Math.round(calledFor / call)));
    const {calls} = timed;
    const all = calls > 1 ? calls + fewerCalls(calls) : 1;
    expected += all * call + (calls > 1 ? 2 : 1) * (one - call);
  }
  return expected;
}

/** Milliseconds of the calls of a case in a row and, if they are several, of `fewerCalls` of them, each with a wait. */
export interface CaseTimes {
  fewer: number;
  all: number;
  /** What this thread takes for a call of them. */
  recorded: number;
}

/**
 * Milliseconds of one of the calls in a row, without the wait for the device: what some calls more take, or of a call by itself what it takes beside `wait`. No less than
 * half of what was timed: beside other work the wait is that work's, and may be longer than the calls.
 */
export function timeOfCall({fewer, all}: Omit<CaseTimes, 'recorded'>, calls: number, wait: number): number {
  if (calls === 1) return Math.max(all - wait, all / 2);
  return Math.min(Math.max((all - fewer) / (calls - fewerCalls(calls)), all / calls / 2), all / calls);
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
  const samples = cases.map(() => ({fewer: [] as number[], all: [] as number[], recorded: [] as number[]}));
  const medians = () =>
    samples.map(({fewer, all, recorded}): CaseTimes => ({
      fewer: medianOfTimes(fewer),
      all: medianOfTimes(all),
      recorded: medianOfTimes(recorded),
    }));
  let longest = expected;
  const begin = clock.now();
  for (let round = 0; round < mostRounds; ++round) {
    const start = clock.now();
    if (round > 0 && !(start - begin + longest <= budget)) break;
    for (const [index, {run, calls}] of cases.entries()) {
      signal?.throwIfAborted();
      const fewer = await timeChain(clock, {run, calls: fewerCalls(calls)});
      const {all, recorded} = calls > 1 ? await timeChain(clock, {run, calls}) : fewer;
      samples[index].fewer.push(fewer.all);
      samples[index].all.push(all);
      samples[index].recorded.push(recorded / calls);
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
