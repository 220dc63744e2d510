import type {AttentionCosts} from '../cost_model.js';
import type {Arithmetic} from './arithmetic.js';
import {arithmeticOf} from './arithmetic.js';

/**
 * Measured on one NVIDIA H100, 2026-11-25, multiply-adds on an H200, 2026-11-23 (docs/performance.md): the fastest devices that
 * we have. On a slower one arithmetic counts for more and recording for less, so that sparse attention pays at shorter lengths
 * than these say: the error is on the side of exact attention.
 *
 * `record` is of Chromium; Node with Dawn takes three times as long.
 */
const common: Omit<AttentionCosts, 'multiplyAdds'> = {
  sparseFactor: 1.12,
  record: 0.022,
  programs: 9,
  probePrograms: 4,
  // One more without probe rows, whose summaries serve the remainder, too.
  remainderPrograms: 2,
  // Half of it is that attention waits for its longest list: in short sequences no other fills the gap.
  fixed: 0.1,
  programFixed: 0.0085,
  proxyMultiplyAdd: 2.2e-10,
  probeMultiplyAdd: 1.2e-10,
  summaryMultiplyAdd: 2.3e-10,
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
