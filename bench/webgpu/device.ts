import {backend, ready, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../../src/webgpu';
import type {Device} from '../device';
import {whyNot} from '../our_attention';
import {finish, timePrograms, WARM_UP_MS} from './dispatch_timing';
import {peakBytes} from './gpu_memory';

/** Runs tfjs's webgpu backend on a device with every useful feature and limit of the adapter, `without` some features. */
export async function openWebGPU(without: string[]): Promise<Device> {
  leaveOut(without);
  const device = await registerWhenUp();
  const errors: string[] = [];
  device.addEventListener('uncapturederror', ({error}) => errors.push(error.message));
  await setBackend('webgpu');
  await ready();
  const webgpu = backend() as WebGPUBackend;
  const {vendor, architecture, device: model, description} = device.adapterInfo;
  const limit = {bytes: device.limits.maxStorageBufferBindingSize, reason: 'the binding limit'};
  return {
    about: {
      backend: 'webgpu',
      adapter: [vendor, architecture, model, description].filter(Boolean).join(', '),
      features: [...device.features].sort(),
    },
    errors,
    timer: {
      shortestMs: 40,
      // Clocks fall while inputs are made; of memory, by two to five times (docs/performance.md, 2026-11-30).
      warmUpMs: WARM_UP_MS,
      finish: () => finish(webgpu),
      timePrograms: (call, seconds) => timePrograms(webgpu, call, seconds),
    },
    precisions: ['float32', 'float16'],
    whyNot: (precision) => whyNot(precision, device),
    tensorLimit: limit,
    scoreLimit: limit,
    longest: Infinity,
    peakBytes: (call) => peakBytes(webgpu, call),
  };
}

/** In Chromium the first request can come before the GPU process is up. */
async function registerWhenUp(attempts = 10): Promise<GPUDevice> {
  try {
    return await registerWebGPUBackend();
  } catch (error) {
    if (attempts === 0) throw error;
    await new Promise((resolve) => setTimeout(resolve, 300));
    return registerWhenUp(attempts - 1);
  }
}

/** Hides features of adapters, so that no device is asked for them. */
function leaveOut(features: string[]): void {
  if (features.length === 0) return;
  const {gpu} = navigator;
  const requestAdapter = gpu.requestAdapter.bind(gpu);
  gpu.requestAdapter = async (options) => {
    const adapter = await requestAdapter(options);
    const left = new Set([...(adapter?.features ?? [])].filter((name) => !features.includes(name)));
    if (adapter) Object.defineProperty(adapter, 'features', {value: left});
    return adapter;
  };
}
