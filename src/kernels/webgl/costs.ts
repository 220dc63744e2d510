import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {AttentionCosts} from '../../attention/cost_model.js';
import {deviceCosts} from '../../attention/device_costs.js';
import {describeAdapter} from './runtime/adapter.js';

/**
 * Fitted to what `npm run bench -- --browser --backend webgl` measured in Chromium on one NVIDIA H200, 2026-11-23
 * (docs/benchmarks-webgl.md of commit 6e00fff). Fragment shaders can use but a small part of these chips, so that here only the
 * ratios count; they follow from texels fetched, for attention and the stages before it alike.
 */
export const webglCosts: AttentionCosts = {
  multiplyAdds: 2.75e8,
  // Fragments of blocks that a list does not have still start.
  sparseFactor: 1.2,
  record: 0.02,
  programs: 25,
  sampledPrograms: 27,
  fixed: 0.3,
  proxyMultiplyAdd: 6.9e-9,
  // 1.3 to 1.5 of one of attention at 4,096 and 2,048 tokens, keys of own segments included; in software (SwiftShader).
  sampleMultiplyAdd: 5e-9,
  pooledValue: 8e-8,
  blockPairValue: 1e-7,
  blockTriple: 1.8e-8,
};

/** The costs on the backend's device; float32 is all that it has. */
export function costsOf(backend: MathBackendWebGL): AttentionCosts {
  return deviceCosts(backend, describeAdapter(backend), 'float32', webglCosts);
}
