import type {AttentionCosts} from '../cost_model.js';

/**
 * Fitted to what `npm run bench -- --browser --backend webgl` measured on one NVIDIA H200 in Chromium, 2026-11-23
 * (docs/benchmarks-webgl.md). Fragment shaders can use but a small part of that chip, so that here only the ratios count;
 * they follow from texels fetched, for attention and the stages before it alike.
 */
export const webglCosts: AttentionCosts = {
  multiplyAdds: 2.75e8,
  // Fragments of blocks that a list does not have still start.
  sparseFactor: 1.2,
  record: 0.02,
  programs: 25,
  probePrograms: 12,
  remainderPrograms: 6,
  fixed: 0.3,
  // As those of the stages before; those of probe rows and the remainder were not timed.
  programFixed: 0.012,
  proxyMultiplyAdd: 6.9e-9,
  // Of a proxy row, once.
  probeMultiplyAdd: 3.5e-9,
  summaryMultiplyAdd: 3.5e-9,
  pooledValue: 8e-8,
  blockPairValue: 1e-7,
  blockTriple: 1.8e-8,
};
