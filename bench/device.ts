import {backend, ready, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/webgpu';

export interface Device {
  backend: WebGPUBackend;
  info: GPUAdapterInfo;
  /** Errors of the device so far; a result that came with one is worth nothing. */
  errors: string[];
}

/** Runs tfjs's webgpu backend on a device with every useful feature and limit of the adapter, `without` some. */
export async function registerDevice(without: string[] = []): Promise<Device> {
  leaveOut(without);
  const device = await registerWhenUp();
  const errors: string[] = [];
  device.addEventListener('uncapturederror', ({error}) => errors.push(error.message));
  await setBackend('webgpu');
  await ready();
  return {backend: backend() as WebGPUBackend, info: device.adapterInfo, errors};
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
