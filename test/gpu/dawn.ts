import {createRequire} from 'node:module';
import {registerBackend} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/**
 * Registers the webgpu backend of tfjs in Node, through Dawn, with the device that tfjs itself would ask for. `DAWN` may
 * name another dawn.node than that of the `webgpu` package; without a GPU,
 * `VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json` runs it in software.
 */
export async function registerDawnBackend(): Promise<{device: GPUDevice; info: GPUAdapterInfo}> {
  const load = createRequire(import.meta.url);
  const dawn = load(process.env.DAWN ?? 'webgpu') as typeof import('webgpu');
  Object.assign(globalThis, dawn.globals);
  const gpu = dawn.create([]);
  Object.defineProperty(globalThis, 'navigator', {value: {gpu}, configurable: true});
  const adapter = await gpu.requestAdapter();
  if (!adapter) {
    throw new Error('Dawn found no WebGPU adapter: set VK_DRIVER_FILES to a Vulkan driver.');
  }
  const {limits, info} = adapter;
  const device = await adapter.requestDevice({
    requiredFeatures: adapter.features.has('timestamp-query') ? ['timestamp-query'] : [],
    requiredLimits: {
      maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
      maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
      maxBufferSize: limits.maxBufferSize,
      maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
      maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
    },
  });
  registerBackend('webgpu', () => new WebGPUBackend(device, info));
  return {device, info};
}
