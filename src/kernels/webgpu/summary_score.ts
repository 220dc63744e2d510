import {varianceCap} from '../block_estimate.js';

/** Uniforms of a program that scores summaries: in units of log2, queries times `logitScale`. */
export const summaryUniforms = (scale: number) => ({
  logitScale: {type: 'f32' as const, value: scale * Math.LOG2E},
  // Half of scale² · q² · variance in nats is so much of logitScale² · q² · variance in log2.
  varianceScale: {type: 'f32' as const, value: 1 / (2 * Math.LOG2E)},
  varianceCap: {type: 'f32' as const, value: varianceCap * Math.LOG2E},
});

/**
 * Shader text: log2 of what a query row pays to a block by its summary (see `block_estimate.ts`), from the products of the
 * scaled query with the mean, and of its square with the variance: of four rows or four blocks at once.
 */
export const summaryScore = `
fn summaryScore(byMean : vec4<f32>, byVariance : vec4<f32>, counts : vec4<f32>) -> vec4<f32> {
  return byMean + min(uniforms.varianceScale * byVariance, vec4<f32>(uniforms.varianceCap)) + log2(counts);
}

// Keys of a block that are not padding, of all \`end\` that are none.
fn countOf(block : i32, end : i32) -> f32 {
  return f32(min(uniforms.blockSize, end - block * uniforms.blockSize));
}`;
