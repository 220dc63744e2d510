import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {DeviceDescription} from '../../../attention/device_costs.js';
import {deviceClassOf} from '../../../attention/device_costs.js';
import {adapterInfoOf} from './device_features.js';

const described = new WeakMap<GPUDevice, DeviceDescription>();

/** The adapter of a backend's device. */
export function describeAdapter({device}: WebGPUBackend): DeviceDescription {
  let description = described.get(device);
  if (!description) {
    const info = adapterInfoOf(device);
    const parts = [info?.vendor, info?.architecture, info?.device, info?.description].filter(Boolean);
    const adapter = parts.join(' ') || 'unnamed';
    description = {adapter, deviceClass: info?.isFallbackAdapter ? 'software' : deviceClassOf(adapter)};
    described.set(device, description);
  }
  return description;
}
