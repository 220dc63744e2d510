import {backend, engine, registerBackend, removeBackend, setBackend} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {releaseKeptBuffers} from '../../src/kernels/webgpu/runtime/buffers';
import {countedFault} from './counted_fault';
import type {FaultLayer} from './fail_each';

/** Gives tfjs a device of the test's own while its tests run, and the one from before afterwards. */
export function onOwnDevice(): void {
  let before_: WebGPUBackend;
  before(async () => {
    await setBackend('webgpu');
    before_ = backend() as WebGPUBackend;
    await registerAnew();
  });
  after(async () => {
    (backend() as WebGPUBackend).device.destroy();
    const {device} = before_;
    replaceBackend(() => new WebGPUBackend(device, device.adapterInfo));
    await setBackend('webgpu');
  });
}

/** A backend on a new device in the place of the registered one. */
export async function registerAnew(): Promise<WebGPUBackend> {
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = await adapter.requestDevice({
    requiredFeatures: ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name)) as GPUFeatureName[],
  });
  replaceBackend(() => new WebGPUBackend(device, adapter.info));
  await setBackend('webgpu');
  return backend() as WebGPUBackend;
}

function replaceBackend(make: () => WebGPUBackend): void {
  if ('webgpu' in engine().registryFactory) {
    removeBackend('webgpu');
  }
  registerBackend('webgpu', make, 3);
}

/** Submits what is recorded, so that tfjs frees what was disposed. */
export function flush(gpu: WebGPUBackend): void {
  gpu.ensureCommandEncoderReady();
  gpu.endComputePassEncoder();
  gpu.submitQueue();
}

/** Makes the n-th call of some function of a device fail as the device itself would make it fail. */
export const webgpuFaults: Record<string, (gpu: WebGPUBackend) => FaultLayer> = {
  allocation: (gpu) =>
    countedFault(
      gpu.device,
      'createBuffer',
      (createBuffer, {size, usage, mappedAtCreation}) => {
        if (mappedAtCreation) throw new RangeError('createBuffer failed: out of memory');
        // One without a usage is invalid. It says of itself what was asked for, as one without memory does.
        const buffer = createBuffer({size, usage: 0});
        Object.defineProperties(buffer, {size: {value: size}, usage: {value: usage}});
        return buffer;
      },
      // Of a call that finds nothing of those before it.
      () => releaseKeptBuffers(gpu),
    ),
  pipeline: (gpu) =>
    countedFault(
      gpu.device,
      'createComputePipeline',
      (createPipeline, descriptor) =>
        createPipeline({...descriptor, compute: {...descriptor.compute, entryPoint: 'missing'}}),
      () => Object.assign(gpu, {pipelineCache: {}}),
    ),
  submit: ({device}) =>
    countedFault(device.queue as Pick<Queue, 'submit'>, 'submit', (submit) => {
      const encoder = device.createCommandEncoder();
      encoder.beginComputePass();
      // The pass has not ended: the commands are invalid.
      submit([encoder.finish()]);
    }),
  map: () =>
    countedFault(GPUBuffer.prototype, 'mapAsync', () =>
      Promise.reject(new DOMException('broken by the test', 'OperationError')),
    ),
  'loss of the device': ({device}) =>
    countedFault(device.queue as Pick<Queue, 'submit'>, 'submit', (submit, buffers) => {
      device.destroy();
      submit(buffers);
    }),
};

interface Queue {
  submit: (buffers: GPUCommandBuffer[]) => void;
}
