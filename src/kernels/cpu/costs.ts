import type {AttentionCosts} from '../../attention/cost_model.js';
import type {DeviceDescription} from '../../attention/device_costs.js';
import {deviceCosts} from '../../attention/device_costs.js';

/** Measured in Node 20 on one core of the machine where this was written, 2026-11-23: only their ratios count. */
export const cpuCosts: AttentionCosts = {
  multiplyAdds: 1.6e5,
  sparseFactor: 1,
  record: 0,
  programs: 1,
  sampledPrograms: 1,
  fixed: 0,
  proxyMultiplyAdd: 6e-6,
  sampleMultiplyAdd: 6e-6,
  pooledValue: 1.6e-5,
  blockPairValue: 6e-6,
  blockTriple: 3e-5,
};

/** What no browser tells of a processor. */
export const processor: DeviceDescription = {adapter: 'JavaScript', deviceClass: 'processor'};

/** The costs on the backend's processor. */
export function costsOf(backend: object): AttentionCosts {
  return deviceCosts(backend, processor, 'float32', cpuCosts);
}
