import type {AttentionCosts} from '../../attention/cost_model.js';

/** Measured on the wasm backend in Node 20, one thread, 2026-11-30: choosing blocks takes what it takes on the CPU, in JavaScript. */
export const composedCosts: AttentionCosts = {
  multiplyAdds: 5e6,
  sparseFactor: 1.2,
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
