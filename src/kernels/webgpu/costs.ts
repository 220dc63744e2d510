import type {AttentionCosts} from '../cost_model.js';
import type {Arithmetic} from './arithmetic.js';
import {arithmeticOf} from './arithmetic.js';

/**
 * Measured on one NVIDIA H200, 2026-11-23 (docs/performance.md): the fastest device that we have. On a slower one
 * arithmetic counts for more and recording for less, so that sparse attention pays at shorter lengths than these say: the
 * error is on the side of exact attention.
 *
 * `record` is of Chromium; Node with Dawn takes three times as long.
 */
const common: Omit<AttentionCosts, 'multiplyAdds'> = {
  sparseFactor: 1.04,
  record: 0.022,
  programs: 9,
  probePrograms: 4,
  remainderPrograms: 3,
  fixed: 0.12,
  programFixed: 0.012,
  proxyMultiplyAdd: 2.9e-10,
  // These three on one NVIDIA H100, 2026-11-25, on which exact attention takes as long.
  probeMultiplyAdd: 1.6e-10,
  summaryMultiplyAdd: 2.5e-10,
  pooledValue: 2.2e-9,
  blockPairValue: 1.3e-9,
  blockTriple: 2.8e-10,
};

const multiplyAdds: Record<Arithmetic, number> = {float32: 1.18e10, float16: 1.99e10, 'matrix units': 3.45e10};

/** The costs on a device: they depend on what multiplies. */
export function webgpuCosts(
  device: GPUDevice,
  headDim: number,
  precision: 'float32' | 'float16',
  valueDim = headDim,
): AttentionCosts {
  return {...common, multiplyAdds: multiplyAdds[arithmeticOf(device, {headDim, valueDim}, precision)]};
}
