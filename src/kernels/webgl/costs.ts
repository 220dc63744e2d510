import type {AttentionCosts} from '../cost_model.js';

/**
 * Fitted to what `npm run bench -- --browser --backend webgl` measured in Chromium on one NVIDIA H200, 2026-11-23, and with
 * probe rows and the remainder on an H100, 2026-11-25 (docs/benchmarks-webgl.md and docs/benchmarks-webgl-defaults.md of
 * commit 6e00fff). Fragment shaders can use but a small part of these chips, so that here only the ratios count; they follow from
 * texels fetched, for attention and the stages before it alike.
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
  programFixed: 0.1,
  proxyMultiplyAdd: 6.9e-9,
  // Probe rows and key blocks stand far apart, so that neighbours fetch little in common.
  probeMultiplyAdd: 1.1e-8,
  summaryMultiplyAdd: 1.1e-8,
  pooledValue: 8e-8,
  blockPairValue: 1e-7,
  blockTriple: 1.8e-8,
};
