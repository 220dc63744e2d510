import {dispose, tidy} from '@tensorflow/tfjs-core';
import type {Call, Clock} from './device';
import {timing, type Timing} from './statistics';

const MOST_CALLS = 400;

/** The issue asks for 10; one case may take fewer where its calls are long. */
const TIMINGS = 12;
const LEAST_TIMINGS = 3;

/**
 * Time of a call, in milliseconds: what each of many calls in a row adds to a wait for the device, work of the CPU included where that is
 * longer. A wait takes 1 to 3 ms of its own; the calls of ONNX Runtime are timed without it, too (`onnx/worker.ts`).
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
    for (const [which, {run, calls}] of repeated.entries()) {
      const one = await run(1);
      samples[which].push(((await run(1 + calls)) - one) / calls);
    }
  }
  return repeated.map(({calls}, which) => timing(samples[which], calls));
}

/** How to run a call several times with one wait, how often so that waiting does not count, and how long a timing takes. */
async function warmUp(clock: Clock, call: Call) {
  const run = async (calls: number) => {
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
  // The first call compiles, the next ones wake the clocks of the device. Before they are awake a call seems long.
  await run(1);
  const start = performance.now();
  let calls = await chooseCalls(run, clock.shortestMs);
  while (performance.now() - start < clock.warmUpMs) {
    await run(calls);
  }
  calls = await chooseCalls(run, clock.shortestMs);
  return {run, calls, expected: (await run(1)) + (await run(1 + calls))};
}

/** A single call of a short program is mostly waiting: ask again with more. */
async function chooseCalls(run: (calls: number) => Promise<number>, shortestMs: number): Promise<number> {
  let calls = 1;
  let taken = await run(1);
  while (taken < shortestMs && calls < MOST_CALLS) {
    calls = Math.min(MOST_CALLS, Math.max(2 * calls, Math.ceil((1.2 * calls * shortestMs) / taken)));
    taken = await run(calls);
  }
  return calls;
}
