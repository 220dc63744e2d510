import {dispose, type TensorContainer, tidy} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {timing, type Timing} from './statistics';

/** Shortest timing, so that waiting for the device (some tenths of a millisecond) does not count. */
const TIMING_MS = 40;
const MOST_CALLS = 400;

/** The issue asks for 10; one case may take fewer where its calls are long. */
const TIMINGS = 12;
const LEAST_TIMINGS = 3;

/** Sends what is recorded to the device and waits until it is done. */
export async function finish(backend: WebGPUBackend): Promise<void> {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  await backend.queue.onSubmittedWorkDone();
}

/**
 * Time of a call, in milliseconds, from many calls per wait for the device: what a page sees, work of the CPU included
 * where that is longer.
 *
 * @param seconds about how long to take; long calls are timed less often.
 */
export async function timeCalls(backend: WebGPUBackend, call: () => TensorContainer, seconds: number): Promise<Timing> {
  const once = async (calls: number) => {
    const start = performance.now();
    for (let i = 0; i < calls; ++i) {
      dispose(tidy(call));
    }
    await finish(backend);
    return performance.now() - start;
  };
  // The first call compiles, the second shows the length of one, the rest wakes the clocks of the device.
  await once(1);
  const first = await once(1);
  const calls = await chooseCalls(once, first);
  const expected = await once(calls);
  const timings = Math.max(LEAST_TIMINGS, Math.min(TIMINGS, Math.floor((1000 * seconds) / expected)));
  const samples: number[] = [];
  for (let i = 0; i < timings; ++i) {
    samples.push((await once(calls)) / calls);
  }
  return timing(samples, calls);
}

/** A single call of a short program is mostly waiting: ask again with more. */
async function chooseCalls(once: (calls: number) => Promise<number>, first: number): Promise<number> {
  let calls = 1;
  let taken = first;
  while (taken < TIMING_MS && calls < MOST_CALLS) {
    calls = Math.min(MOST_CALLS, Math.max(2 * calls, Math.ceil((1.2 * calls * TIMING_MS) / taken)));
    taken = await once(calls);
  }
  return calls;
}
