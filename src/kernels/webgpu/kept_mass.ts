import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
import {AttentionProgram, workgroupIndex} from './program.js';
import {workgroupReduce} from './workgroup_reduce.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, blocks]`, the scores of the selected
 * blocks that compete for a query block, as a share of the scores of all that compete; 1 where nothing competes.
 */
export function keptMass(
  backend: WebGPUBackend,
  scores: TensorInfo,
  blockLists: TensorInfo,
  geometry: BlockGeometry,
  causal: boolean,
): TensorInfo {
  return new KeptMassProgram(scores, blockLists, geometry, causal).run(backend);
}

interface KeptMassVariant {
  causal: boolean;
}

export class KeptMassProgram extends AttentionProgram<KeptMassVariant> {
  constructor(
    scores: TensorInfo,
    blockLists: TensorInfo,
    {batch, heads, blockSize, segmentSize, blocks}: BlockGeometry,
    causal: boolean,
  ) {
    super({
      inputs: {scores: {tensor: scores, components: 1}, blockLists: {tensor: blockLists, components: 1}},
      outputShape: [batch, heads, blocks],
      outputType: 'float32',
      threads: 64,
      workgroups: batch * heads * blocks,
      uniforms: causal ? {blocksPerSegment: {type: 'i32', value: segmentSize / blockSize}} : {},
      variant: {causal},
    });
  }

  protected shader({causal}: KeptMassVariant): string {
    return `
// A workgroup adds up the scores of one query block, once of all key blocks that compete and once of those in its list;
// an invocation takes every 64th of either. The reductions hold the barriers, so every invocation gets there.
${workgroupIndex}
${workgroupReduce(64)}
fn main(index : i32) {
  let blocks = uniforms.outShape.z;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * blocks;
  let competing = ${causal ? '((row % blocks) / uniforms.blocksPerSegment) * uniforms.blocksPerSegment' : 'blocks'};
  let candidates = select(0, competing, exists);
  var all = 0.0;
  for (var i = i32(localIndex); i < candidates; i += 64) {
    all += scores[row * blocks + i];
  }
  var kept = 0.0;
  let list = row * (blocks + 1);
  for (var entry = 1 + i32(localIndex); exists && entry <= blockLists[list]; entry += 64) {
    let block = blockLists[list + entry];
    if (block < candidates) {
      kept += scores[row * blocks + block];
    }
  }
  let total = workgroupSum(all);
  let mass = workgroupSum(kept);
  if (localIndex == 0u && exists) {
    // Scores without mass keep every block.
    result[row] = select(1.0, mass / total, total > 0.0);
  }
}`;
  }
}
