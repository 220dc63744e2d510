/**
 * A WebGPU device for TensorFlow.js with what the kernels can use. Needs `@tensorflow/tfjs-backend-webgpu`.
 *
 * @module tfjs-pbs-attention/webgpu
 */
import {engine, registerBackend, removeBackend} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {recordAdapterInfo} from './kernels/webgpu/runtime/device_features.js';

/** Features that the kernels use where a device has them; `timestamp-query` is for tfjs's profiler. */
const usefulFeatures = ['timestamp-query', 'shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];

/** Limits that the kernels, or tfjs's own, can make use of. */
const usefulLimits = [
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupSizeX',
  'maxComputeInvocationsPerWorkgroup',
] as const;

/**
 * Registers tfjs's `webgpu` backend with a device that has every useful feature and limit of the adapter, in the place of
 * tfjs's own, whose device has neither float16 nor subgroups. Call it before `setBackend('webgpu')`: tensors of a webgpu
 * backend that is replaced are lost.
 *
 * ```js
 * import {registerWebGPUBackend} from 'tfjs-pbs-attention/webgpu';
 *
 * await registerWebGPUBackend();
 * await tf.setBackend('webgpu');
 * const output = flashAttention(query, key, value, {precision: 'float16'});
 * ```
 *
 * @param options of `requestAdapter`; default `{powerPreference: 'high-performance'}`, as in tfjs.
 * @returns the device.
 * @throws Error (rejects) if there is no WebGPU, or no adapter; from script tags also if tfjs's WebGPU backend is missing.
 */
export async function registerWebGPUBackend(
  options: GPURequestAdapterOptions = {powerPreference: 'high-performance'},
): Promise<GPUDevice> {
  // By script tags everything of tfjs is in one global, and this script can be there without the backend's.
  if (typeof WebGPUBackend !== 'function') {
    throw new Error(
      'registerWebGPUBackend: got no tf.WebGPUBackend; takes @tensorflow/tfjs-backend-webgpu, loaded first.',
    );
  }
  const adapter = await globalThis.navigator?.gpu?.requestAdapter(options);
  if (!adapter) {
    throw new Error('registerWebGPUBackend: got no WebGPU adapter; takes a browser and a machine that have one.');
  }
  const device = await adapter.requestDevice({
    requiredFeatures: usefulFeatures.filter((name) => adapter.features.has(name)) as GPUFeatureName[],
    requiredLimits: Object.fromEntries(usefulLimits.map((name) => [name, adapter.limits[name]])),
  });
  recordAdapterInfo(device, adapter.info);
  if ('webgpu' in engine().registryFactory) {
    removeBackend('webgpu');
  }
  registerBackend('webgpu', () => new WebGPUBackend(device, adapter.info), 3);
  return device;
}
