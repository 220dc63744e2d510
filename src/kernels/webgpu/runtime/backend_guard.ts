import type {BackendValues, DataId, TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {bufferManagerOf, givingBackBuffers, releaseKeptBuffers, releaseUnmappedBuffers} from './buffers.js';
import {forgetPipelines} from './extended_program.js';
import {longestLaunch} from './launches.js';

/** Private in tfjs's types. */
interface Internals {
  releaseResource(dataId: DataId): void;
  pipelineCache: Record<string, unknown>;
  disposed: boolean;
}

/** A tensor that has got its buffer, and what was on the processor before. */
interface RecentTensor {
  dataId: DataId;
  values?: BackendValues;
}

const anew = 'Remove the webgpu backend and register it anew.';

/**
 * WebGPU answers what it could not do with zeros: where a buffer found no memory, where commands were invalid, where the device is
 * lost. So from our first call on, reads of a backend fail where values did not come about, of tfjs's programs as of ours.
 *
 * Every allocation and every submit has an error scope, whose answer a read waits for: it is there before the values are, and
 * nothing else waits. With a submit all commands in it are lost. The tensors that got their buffers for them, or later and before
 * somebody was told, are not read or attended to any more; others, such as weights, stay good.
 */
export class BackendGuard {
  /** So many: after another one, what was made before it, such as pipelines, may be what failed. */
  failures = 0;
  private latest?: Error;
  /** The first of those that nobody was told of so far. */
  private failure?: Error;
  /** Tensors whose values did not come about. */
  private readonly lostValues = new WeakMap<DataId, Error>();
  /** Tensors put on the GPU for commands that are being recorded, and for those of submits that have not answered. */
  private recorded: RecentTensor[] = [];
  /** What our launches among them should take, in milliseconds. */
  private recordedTime = 0;
  private readonly submitted = new Set<RecentTensor[]>();
  /** Scopes that have not answered. */
  private readonly scopes = new Set<Promise<unknown>>();
  private readonly invalidBuffers = new WeakSet<GPUBuffer>();
  private lossReason?: string;
  /** What is being launched. */
  private program?: {name: string; outputShape: number[]};

  constructor(private readonly backend: WebGPUBackend) {
    void backend.device.lost.then(({reason, message}) => (this.lossReason = message || reason));
    this.guardBuffers();
    this.guardUploads();
    this.guardSubmits();
    this.guardReads();
  }

  /** Names in errors what `launch` does. */
  during<T>(program: {name: string; outputShape: number[]}, launch: () => T): T {
    this.program = program;
    try {
      return launch();
    } finally {
      this.program = undefined;
    }
  }

  /** Submits what is recorded where it would hold the GPU too long together with a launch that comes, of so many milliseconds. */
  submitBefore(time: number): void {
    if (this.recordedTime > 0 && this.recordedTime + time > longestLaunch) {
      this.backend.endComputePassEncoder();
      this.backend.submitQueue();
    }
    this.recordedTime += time;
  }

  /** Throws if nothing can be computed any more. */
  throwIfGone(op: string): void {
    if (this.internals.disposed) {
      throw new Error(`${op}: the webgpu backend was removed, and its tensors with it. Register it anew.`);
    }
    if (this.lossReason !== undefined) {
      throw new Error(`${op}: the WebGPU device was lost (${this.lossReason}). ${anew}`);
    }
  }

  /** Throws if what is to be attended to is not there. */
  throwIfLost(op: string, inputs: object): void {
    for (const [name, input] of Object.entries(inputs as Record<string, TensorInfo | undefined>)) {
      const cause = input && this.lostValues.get(input.dataId);
      if (cause) {
        this.taken();
        throw new Error(`${op}: ${name}: its values were lost: ${cause.message}`, {cause});
      }
    }
  }

  /**
   * Runs what reads from the GPU, and waits until it is known whether the commands before it could be done.
   *
   * @param dataId the tensor that is read, if it is one.
   * @throws Error (rejects) that says what failed, if something did.
   */
  async checked<T>(read: () => Promise<T>, dataId?: DataId): Promise<T> {
    this.throwIfGone('webgpu');
    const {failures} = this;
    const values = await read().catch((cause: Error) => {
      releaseUnmappedBuffers(this.backend);
      this.throwIfGone('webgpu');
      const failure = this.taken();
      // The device may say only later that it was lost.
      const isLost = cause.name === 'AbortError';
      const reason = isLost ? `the WebGPU device was lost. ${anew}` : `the values could not be read: ${cause.message}`;
      throw failure ?? new Error(`webgpu: ${reason}`, {cause});
    });
    await Promise.all(this.scopes);
    this.throwIfGone('webgpu');
    const newest = this.failures === failures ? undefined : this.latest;
    const error = this.taken() ?? (dataId && this.lostValues.get(dataId)) ?? newest;
    if (error) throw error;
    return values;
  }

  private get internals(): Internals {
    return this.backend as unknown as Internals;
  }

  /** Runs `body` and hands an error of the device in it to `report`, when it is known. */
  private scoped<T>(filters: GPUErrorFilter[], body: () => T, report: (error?: GPUError) => void): T {
    const {device} = this.backend;
    filters.forEach((filter) => device.pushErrorScope(filter));
    try {
      return body();
    } finally {
      // On a lost device none of them answers, or by a failure.
      const errors = filters.map(() => device.popErrorScope().catch(() => null));
      const answered = Promise.all(errors).then((all) => {
        this.scopes.delete(answered);
        const error = all.find((x) => x !== null);
        report(error);
        // Who listens to all errors of the device hears of this one as well.
        if (error) device.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', {error}));
      });
      this.scopes.add(answered);
    }
  }

  private guardBuffers(): void {
    const {backend, invalidBuffers} = this;
    const {device, bufferManager} = backend;
    const createBuffer = (descriptor: GPUBufferDescriptor): GPUBuffer => {
      const {name, outputShape} = this.program ?? {};
      const what = name === undefined ? 'webgpu' : `${name} [${outputShape}]`;
      const failure = (reason: string) => new Error(`${what}: no buffer of ${descriptor.size} bytes: ${reason}`);
      const create = () => {
        try {
          return device.createBuffer(descriptor);
        } catch (error) {
          // Memory to write into is missed at once.
          throw failure((error as Error).message);
        }
      };
      let buffer: GPUBuffer | undefined;
      return (buffer = this.scoped(['out-of-memory', 'validation'], create, (error) => {
        if (error && buffer) {
          invalidBuffers.add(buffer);
          // It may be among those already; and others need the memory.
          releaseKeptBuffers(backend);
          this.fail(failure(error instanceof GPUOutOfMemoryError ? 'out of memory.' : firstLine(error)));
        }
      }));
    };
    bufferManagerOf(backend).device = {createBuffer};
    const releaseBuffer = bufferManager.releaseBuffer.bind(bufferManager);
    bufferManager.releaseBuffer = (buffer, reuse = true) => releaseBuffer(buffer, reuse && !invalidBuffers.has(buffer));
  }

  private guardUploads(): void {
    const {backend} = this;
    const uploadToGPU = backend.uploadToGPU.bind(backend);
    backend.uploadToGPU = (dataId) => {
      const {resource, shape, values} = backend.tensorMap.get(dataId);
      if (resource != null) return;
      givingBackBuffers(backend, shape, () => uploadToGPU(dataId));
      this.recorded.push({dataId, values});
    };
  }

  private guardSubmits(): void {
    const {backend} = this;
    const submitQueue = backend.submitQueue.bind(backend);
    backend.submitQueue = () => {
      const tensors = this.recorded;
      this.recorded = [];
      this.recordedTime = 0;
      this.submitted.add(tensors);
      this.scoped(['validation'], submitQueue, (error) => {
        if (error) {
          // Where no buffer was missing, a pipeline may have been: tfjs would use it again.
          if (!this.failure) this.forgetPipelines();
          this.fail(new Error(`webgpu: commands were refused, and their values are lost: ${firstLine(error)}`));
        }
        // Until somebody is told, what is computed may rest on what was lost.
        this.lose(tensors);
        this.submitted.delete(tensors);
      });
    };
  }

  private guardReads(): void {
    const {backend} = this;
    const isOnGPUAlone = (dataId: DataId) => {
      const data = backend.tensorMap.has(dataId) ? backend.tensorMap.get(dataId) : undefined;
      return data?.values == null && data?.resource != null;
    };
    const read = backend.read.bind(backend);
    backend.read = async (dataId) => {
      if (!isOnGPUAlone(dataId)) return read(dataId);
      try {
        return await this.checked(() => read(dataId), dataId);
      } catch (error) {
        // tfjs keeps what it has read.
        if (backend.tensorMap.has(dataId) && backend.tensorMap.get(dataId).resource != null) {
          backend.tensorMap.get(dataId).values = null!;
        }
        throw error;
      }
    };
    const readSync = backend.readSync.bind(backend);
    backend.readSync = (dataId) => {
      if (isOnGPUAlone(dataId)) {
        this.throwIfGone('webgpu');
        const error = this.taken() ?? this.lostValues.get(dataId);
        if (error) throw error;
      }
      return readSync(dataId);
    };
  }

  private forgetPipelines(): void {
    this.internals.pipelineCache = {};
    forgetPipelines(this.backend.device);
  }

  private fail(error: Error): void {
    this.latest = error;
    this.failure ??= error;
    ++this.failures;
    this.loseRecent();
  }

  private loseRecent(): void {
    [...this.submitted, this.recorded].forEach((tensors) => this.lose(tensors));
  }

  private lose(tensors: RecentTensor[]): void {
    const {failure, lostValues, backend} = this;
    if (!failure) return;
    for (const {dataId, values} of tensors.filter(({dataId}) => backend.tensorMap.has(dataId))) {
      if (values) {
        // Still on the processor: it is uploaded again when it is needed.
        this.internals.releaseResource(dataId);
        backend.tensorMap.get(dataId).values = values;
      } else {
        lostValues.set(dataId, lostValues.get(dataId) ?? failure);
      }
    }
  }

  /** The failure that nobody was told of, for somebody who is. */
  private taken(): Error | undefined {
    const {failure} = this;
    this.loseRecent();
    this.failure = undefined;
    return failure;
  }
}

const guards = new WeakMap<WebGPUBackend, BackendGuard>();

/** The guard of a backend, from the first call on. */
export function guardOf(backend: WebGPUBackend): BackendGuard {
  let guard = guards.get(backend);
  if (!guard) {
    guards.set(backend, (guard = new BackendGuard(backend)));
  }
  return guard;
}

const firstLine = ({message}: GPUError) => message.split('\n')[0];
