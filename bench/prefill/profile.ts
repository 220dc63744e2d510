import {engine} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PrefillAttention} from '../../runner/llama/attention';
import {Context} from '../../runner/llama/context';
import {generate} from '../../runner/llama/generate';
import type {LlamaModel, PrefillRequest} from '../../runner/llama/model';
import type {Precision} from '../our_attention';
import {timing, type Timing} from '../statistics';
import {recordDispatches, timeDispatches} from '../webgpu/dispatch_timing';

/** A prompt and how it is read. */
export interface PrefillWork {
  model: LlamaModel;
  ids: readonly number[];
  request: PrefillRequest;
}

export interface PrefillTimes {
  /** From the prefill's call until the first token's id was read back, in milliseconds. */
  firstToken: Timing;
  /** Of it, until the whole prefill was queued: work of this thread. */
  record: Timing;
}

/** Where the time of the GPU goes: one entry for each kernel, program and shape. */
export interface KernelTime {
  /** Kernel of tfjs that encoded the dispatches. */
  kernel: string;
  program: string;
  /** Shapes of inputs and output. */
  shapes: string;
  dispatches: number;
  /** Of all of them together, in milliseconds. */
  gpuMs: number;
}

export interface PrefillRun extends PrefillTimes {
  length: number;
  attention: PrefillAttention;
  precision: Precision;
  /** What a token takes after the first, in milliseconds. */
  decode?: Timing;
  /** To the first token of a second question, in milliseconds. */
  nextQuestion?: Timing;
  /** Bytes that the backend has taken from the device, by the end of the run. */
  gpuBytes: number;
  profile?: KernelTime[];
}

/** Median times of prefills one after the other, after as many as `warmUpMs` takes: clocks rise slowly. */
export async function timePrefill(
  {model, ids, request}: PrefillWork,
  timings: number,
  warmUpMs: number,
): Promise<PrefillTimes> {
  const once = async () => (await generate(model, ids, {...request, maxTokens: 1})).firstTokenMs;
  // The first compiles the shaders.
  await once();
  const start = performance.now();
  do await once();
  while (performance.now() - start < warmUpMs);
  const firstToken: number[] = [];
  for (let i = 0; i < timings; ++i) firstToken.push(await once());
  const record: number[] = [];
  for (let i = 0; i < timings; ++i) {
    const begin = performance.now();
    // Without onLayer and signal, nothing in it waits for the device.
    const {logits, cache} = await model.prefill(ids, request);
    record.push(performance.now() - begin);
    await logits.data();
    logits.dispose();
    cache.dispose();
  }
  return {firstToken: timing(firstToken, 1), record: timing(record, 1)};
}

/** Milliseconds to the first token of another question of so many tokens over the same prompt, whose keys and values are kept. */
export async function timeNextQuestion({model, ids, request}: PrefillWork, tokens: number): Promise<Timing> {
  const context = new Context();
  const firstToken: number[] = [];
  try {
    await generate(model, ids, {...request, context, maxTokens: 1});
    context.prepareToContinue(model);
    for (let i = 0; i < 6; ++i) {
      const question = ids.slice(i + 1, i + 1 + tokens);
      const {firstTokenMs} = await generate(model, [...ids, ...question], {...request, context, maxTokens: 1});
      if (i > 0) firstToken.push(firstTokenMs);
    }
  } finally {
    context.dispose();
  }
  return timing(firstToken, 1);
}

/** Milliseconds a token while at most so many are written after the prompt; the first time does not count. */
export async function timeDecoding({model, ids, request}: PrefillWork, most: number): Promise<Timing> {
  const perToken: number[] = [];
  let steps = 0;
  for (let i = 0; i < 4; ++i) {
    const {tokens, restMs} = await generate(model, ids, {...request, maxTokens: most + 1});
    steps = tokens.length - 1;
    if (i > 0) perToken.push(restMs / steps);
  }
  return timing(perToken, steps);
}

/**
 * Time on the GPU of each dispatch of a prefill, by timestamps around many repetitions, summed up by kernel, program and
 * shape. It leaves out the gaps between dispatches, and finds more in the caches than a prefill does.
 *
 * @param seconds about how long to take.
 * @returns undefined where the device has no timestamps.
 */
export async function profilePrefill(
  backend: WebGPUBackend,
  {model, ids, request}: PrefillWork,
  seconds: number,
): Promise<KernelTime[] | undefined> {
  if (!backend.device.features.has('timestamp-query')) return undefined;
  const names = watchKernels(backend);
  const described: Array<{kernel: string; shapes: string}> = [];
  try {
    const {dispatches, release} = await recordDispatches(
      backend,
      async () => {
        const {logits, cache} = await model.prefill(ids, request);
        logits.dispose();
        cache.dispose();
      },
      () => described.push(names.current()),
    );
    try {
      const timings = await timeDispatches(backend.device, dispatches, seconds);
      return sumUp(timings.map(({median}, i) => ({...described[i], program: dispatches[i].program, gpuMs: median})));
    } finally {
      release();
    }
  } finally {
    names.restore();
  }
}

/** Tells which kernel of tfjs runs now, and on what shapes its program is run. */
function watchKernels(backend: WebGPUBackend) {
  const kernels: string[] = [];
  let shapes = '';
  const tfjs = engine();
  const runKernel = tfjs.runKernel.bind(tfjs);
  const runWebGPUProgram = backend.runWebGPUProgram.bind(backend);
  tfjs.runKernel = ((name, ...rest) => {
    kernels.push(name);
    try {
      return runKernel(name, ...rest);
    } finally {
      kernels.pop();
    }
  }) as typeof runKernel;
  backend.runWebGPUProgram = (program, inputs, ...rest) => {
    shapes = `${inputs.map(({shape}) => `[${shape}]`).join(' ')} → [${program.outputShape}]`;
    try {
      return runWebGPUProgram(program, inputs, ...rest);
    } finally {
      shapes = '';
    }
  };
  return {
    current: () => ({kernel: kernels.at(-1) ?? 'none', shapes}),
    restore: () => {
      // What is left are the methods of the classes.
      Reflect.deleteProperty(tfjs, 'runKernel');
      Reflect.deleteProperty(backend, 'runWebGPUProgram');
    },
  };
}

function sumUp(dispatches: ReadonlyArray<Omit<KernelTime, 'dispatches'>>): KernelTime[] {
  const sums = new Map<string, KernelTime>();
  for (const {kernel, program, shapes, gpuMs} of dispatches) {
    const key = [kernel, program, shapes].join('|');
    const sum = sums.get(key) ?? {kernel, program, shapes, dispatches: 0, gpuMs: 0};
    sums.set(key, {...sum, dispatches: sum.dispatches + 1, gpuMs: sum.gpuMs + gpuMs});
  }
  return [...sums.values()].sort((a, b) => b.gpuMs - a.gpuMs);
}
