import {dispose, tidy} from '@tensorflow/tfjs-core';
import type {Call, Clock} from './device';
import {timing, type Timing} from './statistics';

const MOST_CALLS = 400;

/** The issue asks for 10; one case may take fewer where its calls are long. */
const TIMINGS = 12;
const LEAST_TIMINGS = 3;

/**
 * Time of a call, in milliseconds, from many calls per wait for the device: what a page sees, work of the CPU included
 * where that is longer.
 *
 * @param seconds about how long to take; long calls are timed less often.
 */
export async function timeCalls(clock: Clock, call: Call, seconds: number): Promise<Timing> {
  return (await timeInTurns(clock, [call], seconds))[0];
}

/** The same for several calls that are compared: one timing of each after the other, so that all meet the same clocks. */
export async function timeInTurns(clock: Clock, calls: readonly Call[], seconds: number): Promise<Timing[]> {
  const repeated: Array<Awaited<ReturnType<typeof warmUp>>> = [];
  for (const call of calls) {
    repeated.push(await warmUp(clock, call));
  }
  const round = repeated.reduce((sum, {expected}) => sum + expected, 0);
  const timings = Math.max(LEAST_TIMINGS, Math.min(TIMINGS, Math.floor((1000 * seconds * calls.length) / round)));
  const samples: number[][] = calls.map(() => []);
  for (let i = 0; i < timings; ++i) {
    for (const [which, {once, calls}] of repeated.entries()) {
      samples[which].push((await once(calls)) / calls);
    }
  }
  return repeated.map(({calls}, which) => timing(samples[which], calls));
}

/** How to run a call several times with one wait, how often so that waiting does not count, and how long that takes. */
async function warmUp(clock: Clock, call: Call) {
  const once = async (calls: number) => {
    const start = performance.now();
    for (let i = 1; i < calls; ++i) {
      dispose(tidy(call));
    }
    const last = tidy(call);
    try {
      await clock.finish(last);
      return performance.now() - start;
    } finally {
      last.dispose();
    }
  };
  // The first call compiles, the second shows the length of one, the rest wakes the clocks of the device.
  await once(1);
  const start = performance.now();
  const first = await once(1);
  const calls = await chooseCalls(once, first, clock.shortestMs);
  let expected = await once(calls);
  while (performance.now() - start < clock.warmUpMs) {
    expected = await once(calls);
  }
  return {once, calls, expected};
}

/** A single call of a short program is mostly waiting: ask again with more. */
async function chooseCalls(
  once: (calls: number) => Promise<number>,
  first: number,
  shortestMs: number,
): Promise<number> {
  let calls = 1;
  let taken = first;
  while (taken < shortestMs && calls < MOST_CALLS) {
    calls = Math.min(MOST_CALLS, Math.max(2 * calls, Math.ceil((1.2 * calls * shortestMs) / taken)));
    taken = await once(calls);
  }
  return calls;
}
