import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {sampleStride} from '../../../attention/sampled_estimate.js';
import {AttentionProgram, f32} from '../runtime/program.js';

/**
 * Last part of stage 2, score blocks, by the sampled estimate: float32 `[batch, heads, queryBlocks, keyBlocks]`, what the rows of
 * a query block pay to each key block in the mean, and `peakWeight` of the most that one pays. With a weight of 0 the means.
 */
export class SampledScoresProgram extends AttentionProgram<object> {
  /** @param mass what `sampledMass` gives. */
  constructor(mass: TensorInfo, geometry: BlockGeometry, peakWeight: number) {
    const {batch, heads, queryBlocks, keyBlocks} = geometry;
    super({
      name: 'SampledScores',
      inputs: {mass},
      outputShape: [batch, heads, queryBlocks, keyBlocks],
      call: {geometry},
      uniforms: {peakWeight: f32(peakWeight)},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation scores one key block: it adds up the sums of the phases, and takes the largest of their peaks.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    let blocks = uniforms.keyBlocks;
    let row = index / blocks;
    let rows = min(uniforms.blockSize, uniforms.queryLength - (row % uniforms.queryBlocks) * uniforms.blockSize);
    var sum = 0.0;
    var peak = 0.0;
    for (var phase = 0; phase < ${sampleStride}; phase++) {
      let at = (row * ${2 * sampleStride} + 2 * phase) * blocks + index % blocks;
      sum += mass[at];
      peak = max(peak, mass[at + blocks]);
    }
    result[index] = sum / f32(rows) + uniforms.peakWeight * peak;
  }
}`;
  }
}
