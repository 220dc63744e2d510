import {readFile} from 'node:fs/promises';
import {createRequire} from 'node:module';
import {registerBackend} from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {setEnvironment} from '../environment';
import {failOnDeviceErrors} from './watch_device';

/**
 * WebGPU in Node, through Dawn: for GPU hosts without a browser. `DAWN` may name another dawn.node than that of the
 * `webgpu` package; without a GPU, `VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json` runs it in software.
 */
const load = createRequire(import.meta.url);
const dawn = load(process.env.DAWN ?? 'webgpu') as typeof import('webgpu');
Object.assign(globalThis, dawn.globals);
const gpu = dawn.create([]);
Object.defineProperty(globalThis, 'navigator', {value: {gpu}, configurable: true});

const adapter = await gpu.requestAdapter();
if (!adapter) {
  throw new Error('Dawn found no WebGPU adapter: set VK_DRIVER_FILES to a Vulkan driver.');
}
const {limits} = adapter;
const device = await adapter.requestDevice({
  requiredFeatures: adapter.features.has('timestamp-query') ? ['timestamp-query'] : [],
  // The limits that tfjs itself asks for.
  requiredLimits: {
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
    maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
    maxBufferSize: limits.maxBufferSize,
    maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
    maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
  },
});
failOnDeviceErrors(async () => device);
registerBackend('webgpu', () => new WebGPUBackend(device, adapter.info));
console.log(`adapter: ${adapter.info.vendor} ${adapter.info.architecture} ${adapter.info.description}`);

setEnvironment({
  backends: ['webgpu'],
  async readFile(path) {
    const bytes = await readFile(path);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  },
});
