import {dispose, tidy} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {Call, ProgramTiming} from '../device';
import {timing, type Timing} from '../statistics';

/** Sends what is recorded to the device and waits until it is done. */
export async function finish(backend: WebGPUBackend): Promise<void> {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  await backend.queue.onSubmittedWorkDone();
}

/** One dispatch of a call, as the backend encoded it. */
export interface RecordedDispatch {
  /** Label of the pipeline: tfjs gives it the name of the program's class. */
  program: string;
  encode: (pass: GPUComputePassEncoder) => void;
}

/** The dispatches of a call, which can be run again in their order until `release`. */
export interface Recording {
  dispatches: RecordedDispatch[];
  /** Gives the buffers of the call back to the backend. */
  release: () => void;
}

/**
 * Runs a function and records its dispatches, whoever encodes them. Buffers that it frees are held back, so that inputs and
 * uniforms of every dispatch stay as they were.
 *
 * @param onDispatch told when a dispatch is encoded, before the next one.
 */
export async function recordDispatches(
  backend: WebGPUBackend,
  run: () => void | Promise<void>,
  onDispatch?: () => void,
): Promise<Recording> {
  await finish(backend);
  const dispatches: RecordedDispatch[] = [];
  const {device, bufferManager: pool} = backend;
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  const releaseBuffer = pool.releaseBuffer.bind(pool);
  const heldBack: Array<Parameters<typeof releaseBuffer>> = [];
  const add = (dispatch: RecordedDispatch) => {
    dispatches.push(dispatch);
    onDispatch?.();
  };
  device.createCommandEncoder = (descriptor) => recordPasses(createCommandEncoder(descriptor), add);
  pool.releaseBuffer = (...args) => void heldBack.push(args);
  try {
    await run();
    await finish(backend);
  } finally {
    device.createCommandEncoder = createCommandEncoder;
    pool.releaseBuffer = releaseBuffer;
  }
  return {dispatches, release: () => heldBack.splice(0).forEach((args) => releaseBuffer(...args))};
}

type AddDispatch = (dispatch: RecordedDispatch) => void;

function recordPasses(encoder: GPUCommandEncoder, add: AddDispatch): GPUCommandEncoder {
  const beginComputePass = encoder.beginComputePass.bind(encoder);
  encoder.beginComputePass = (descriptor) => recordDispatchesOf(beginComputePass(descriptor), add);
  return encoder;
}

function recordDispatchesOf(pass: GPUComputePassEncoder, add: AddDispatch): GPUComputePassEncoder {
  let pipeline: GPUComputePipeline;
  let groups = new Map<number, GPUBindGroup>();
  const record = (dispatch: (pass: GPUComputePassEncoder) => void) => {
    const [usedPipeline, usedGroups] = [pipeline, [...groups]];
    add({
      program: usedPipeline.label || 'unnamed',
      encode: (target) => {
        target.setPipeline(usedPipeline);
        usedGroups.forEach(([index, group]) => target.setBindGroup(index, group));
        dispatch(target);
      },
    });
  };
  const setPipeline = pass.setPipeline.bind(pass);
  pass.setPipeline = (given) => {
    pipeline = given;
    setPipeline(given);
  };
  const setBindGroup = pass.setBindGroup.bind(pass) as (index: number, group: GPUBindGroup) => undefined;
  pass.setBindGroup = ((index: number, group: GPUBindGroup) => {
    groups = new Map(groups).set(index, group);
    setBindGroup(index, group);
  }) as GPUComputePassEncoder['setBindGroup'];
  const dispatchWorkgroups = pass.dispatchWorkgroups.bind(pass);
  pass.dispatchWorkgroups = (x, y = 1, z = 1) => {
    record((target) => target.dispatchWorkgroups(x, y, z));
    dispatchWorkgroups(x, y, z);
  };
  const dispatchIndirect = pass.dispatchWorkgroupsIndirect.bind(pass);
  pass.dispatchWorkgroupsIndirect = (buffer, offset) => {
    record((target) => target.dispatchWorkgroupsIndirect(buffer, offset));
    dispatchIndirect(buffer, offset);
  };
  return pass;
}

/** Work before what counts: a device that has waited raises its clocks in so long. */
export const WARM_UP_MS = 400;
/** Length of a timed pass, far above the step of the timestamps (65 to 100 µs). */
const PASS_MS = 12;
const MOST_REPEATS = 1000;
const ROUNDS = 10;

/**
 * Time on the GPU of each program of a call, in milliseconds, by timestamps around a pass that repeats it. A dispatch
 * reads what those before it have written, so all are run in their order; one that adds to what it wrote before would be
 * mistimed.
 *
 * @param seconds about how long to take.
 * @returns undefined where the device has no timestamps.
 */
export async function timePrograms(
  backend: WebGPUBackend,
  call: Call,
  seconds: number,
): Promise<ProgramTiming[] | undefined> {
  if (!backend.device.features.has('timestamp-query')) return undefined;
  const {dispatches, release} = await recordDispatches(backend, () => dispose(tidy(call)));
  try {
    const timings = await timeDispatches(backend.device, dispatches, seconds);
    return timings.map((gpu, i) => ({program: dispatches[i].program, gpu}));
  } finally {
    release();
  }
}

/**
 * Time on the GPU of each of the dispatches, in milliseconds. The device must have timestamps.
 *
 * @param seconds about how long to take.
 */
export async function timeDispatches(
  device: GPUDevice,
  dispatches: readonly RecordedDispatch[],
  seconds: number,
): Promise<Timing[]> {
  const clock = passClock(device, dispatches.length);
  try {
    let repeats = dispatches.map(() => 1);
    // Twice, because a single short pass may fall between two steps of the clock.
    for (const atMost of [20, MOST_REPEATS]) {
      const taken = await clock.run(dispatches, repeats);
      repeats = taken.map((ms, i) => Math.ceil(Math.min(atMost, Math.max(1, PASS_MS / (ms / repeats[i])))));
    }
    let start = performance.now();
    while (performance.now() - start < WARM_UP_MS) {
      await clock.run(dispatches, repeats);
    }
    start = performance.now();
    const rounds: number[][] = [];
    while (rounds.length < 3 || (rounds.length < ROUNDS && performance.now() - start < 1000 * seconds)) {
      rounds.push(await clock.run(dispatches, repeats));
    }
    return dispatches.map((_, i) =>
      timing(
        rounds.map((round) => round[i] / repeats[i]),
        repeats[i],
      ),
    );
  } finally {
    clock.destroy();
  }
}

/** Runs one pass a dispatch and reads how long each took. */
function passClock(device: GPUDevice, passes: number) {
  const size = 16 * passes;
  const querySet = device.createQuerySet({type: 'timestamp', count: 2 * passes});
  const resolved = device.createBuffer({size, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC});
  const readable = device.createBuffer({size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
  return {
    async run(dispatches: readonly RecordedDispatch[], repeats: readonly number[]): Promise<number[]> {
      const encoder = device.createCommandEncoder();
      dispatches.forEach(({encode}, i) => {
        const pass = encoder.beginComputePass({
          timestampWrites: {querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1},
        });
        for (let repeat = 0; repeat < repeats[i]; ++repeat) {
          encode(pass);
        }
        pass.end();
      });
      encoder.resolveQuerySet(querySet, 0, 2 * passes, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, readable, 0, size);
      device.queue.submit([encoder.finish()]);
      await readable.mapAsync(GPUMapMode.READ);
      const nanoseconds = new BigUint64Array(readable.getMappedRange().slice(0));
      readable.unmap();
      return dispatches.map((_, i) => Number(nanoseconds[2 * i + 1] - nanoseconds[2 * i]) / 1e6);
    },
    destroy() {
      querySet.destroy();
      resolved.destroy();
      readable.destroy();
    },
  };
}
