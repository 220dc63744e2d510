import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {sampleStride} from '../../../attention/sampled_estimate.js';
import {AttentionProgram, f32, i32} from '../runtime/program.js';
import {workgroupIndex} from '../wgsl/rows.js';

const threads = 64;

/**
 * Last part of stage 2, score blocks, by the sampled estimate: float32 `[batch, heads, queryBlocks, keyBlocks]`, what the rows of
 * a query block pay to each key block in the mean, and `peakWeight` of the most that one pays. With a weight of 0 the means.
 */
export class SampledScoresProgram extends AttentionProgram<object> {
  /** @param mass what `sampledMass` gives. */
  constructor(mass: TensorInfo, geometry: BlockGeometry, peakWeight: number) {
    const {batch, heads, queryLength, blockSize, queryBlocks, keyBlocks} = geometry;
    const outputShape = [batch, heads, queryBlocks, keyBlocks];
    super({
      name: 'SampledScores',
      inputs: {mass: {tensor: mass}},
      outputShape,
      threads,
      workgroups: Math.ceil(util.sizeFromShape(outputShape) / threads),
      uniforms: {
        blockSize: i32(blockSize),
        queryLength: i32(queryLength),
        peakWeight: f32(peakWeight),
      },
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation scores one key block: it adds up the sums of the phases, and takes the largest of their peaks.
${workgroupIndex}
fn main(index : i32) {
  let i = workgroupIndex() * ${threads} + i32(localIndex);
  let blocks = uniforms.outShape.w;
  let queryBlocks = uniforms.outShape.z;
  if (i < uniforms.outShape.x * uniforms.outShape.y * queryBlocks * blocks) {
    let row = i / blocks;
    let rows = min(uniforms.blockSize, uniforms.queryLength - (row % queryBlocks) * uniforms.blockSize);
    var sum = 0.0;
    var peak = 0.0;
    for (var phase = 0; phase < ${sampleStride}; phase++) {
      let at = (row * ${2 * sampleStride} + 2 * phase) * blocks + i % blocks;
      sum += mass[at];
      peak = max(peak, mass[at + blocks]);
    }
    result[i] = sum / f32(rows) + uniforms.peakWeight * peak;
  }
}`;
  }
}
