import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../../attention/block_geometry.js';
import type {AttentionCosts} from '../../attention/cost_model.js';
import {deviceCosts} from '../../attention/device_costs.js';
import type {AttentionArithmetic} from './attend/arithmetic.js';
import {arithmeticOf} from './attend/arithmetic.js';
import {describeAdapter} from './runtime/adapter.js';
import {sampleUnits} from './select/sampled_mass_matrix.js';

/**
 * Measured on one NVIDIA H100, 2026-11-25, attention itself on an H200, 2026-11-30 (docs/performance.md): the fastest devices that
 * we have. On a slower one arithmetic counts for more and recording for less (`device_costs.ts`).
 *
 * `record` is of Chromium; Node with Dawn takes three times as long.
 */
const common: Omit<AttentionCosts, 'multiplyAdds' | 'sparseFactor' | 'sampleMultiplyAdd'> = {
  record: 0.022,
  programs: 8,
  sampledPrograms: 6,
  // Half of it is that attention waits for its longest list: in short sequences no other fills the gap.
  fixed: 0.1,
  proxyMultiplyAdd: 2.2e-10,
  pooledValue: 2.2e-9,
  blockPairValue: 1.3e-9,
  blockTriple: 2.8e-10,
};

/** Measured on one H100, 2026-11-28, 14 heads of 64, 16,384 and 32,640 tokens. */
const sampleMultiplyAdd = {matrixUnits: 3.1e-11, without: 1.3e-10};

/** 8 heads of 64, 16,384 tokens; of blocks beside that, heads of the demo's model. */
const attendCosts: Record<AttentionArithmetic, Pick<AttentionCosts, 'multiplyAdds' | 'sparseFactor'>> = {
  float32: {multiplyAdds: 1.45e10, sparseFactor: 1.12},
  float16: {multiplyAdds: 2.24e10, sparseFactor: 1.12},
  // Masks are left out of tiles that all rows see in exact attention alone.
  'matrix units': {multiplyAdds: 6.5e10, sparseFactor: 1.27},
};

/** The costs on the fastest device with these features: they depend on what multiplies. */
export function webgpuCosts(
  device: GPUDevice,
  headDim: number,
  precision: 'float32' | 'float16',
  valueDim = headDim,
): AttentionCosts {
  return {
    ...common,
    sampleMultiplyAdd: sampleUnits(device) ? sampleMultiplyAdd.matrixUnits : sampleMultiplyAdd.without,
    ...attendCosts[arithmeticOf(device, {headDim, valueDim}, precision)],
  };
}

/** The costs on the backend's device. */
export function costsOf(
  backend: WebGPUBackend,
  {headDim, valueDim}: Pick<BlockGeometry, 'headDim' | 'valueDim'>,
  precision: 'float32' | 'float16',
): AttentionCosts {
  const {device} = backend;
  const fastest = webgpuCosts(device, headDim, precision, valueDim);
  // A calibration of the adapter may be of a device with float16 where this one has none.
  const multiplied = arithmeticOf(device, {headDim, valueDim}, precision) === 'float32' ? 'float32' : precision;
  return deviceCosts(backend, describeAdapter(backend), multiplied, fastest, () => webgpuCosts(device, 64, multiplied));
}
