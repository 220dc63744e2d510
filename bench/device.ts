import {backend, ready, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {registerWebGPUBackend} from '../src/webgpu';

export interface Device {
  backend: WebGPUBackend;
  info: GPUAdapterInfo;
  /** Errors of the device so far; a result that came with one is worth nothing. */
  errors: string[];
}

/** Runs tfjs's webgpu backend on a device with every useful feature and limit of the adapter. */
export async function registerDevice(): Promise<Device> {
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
