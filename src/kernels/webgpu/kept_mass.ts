import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {AttentionProgram, workgroupIndex} from './program.js';
import {workgroupReduce} from './workgroup_reduce.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, queryBlocks]`, the scores of the selected
 * blocks as a share of all scores of a query block; 1 where there are none. Blocks that do not compete have score 0. With
 * `ownCounts` (see {@link selectBlocks}) scores are shares of all attention, of which those of the others are lost; they
 * can add up to more than 1.
 */
export function keptMass(
  backend: WebGPUBackend,
  scores: TensorInfo,
  blockLists: TensorInfo,
  ownCounts = false,
): TensorInfo {
  return new KeptMassProgram(scores, blockLists, ownCounts).run(backend);
}

export class KeptMassProgram extends AttentionProgram<{ownCounts: boolean}> {
  constructor(scores: TensorInfo, blockLists: TensorInfo, ownCounts: boolean) {
    const [batch, heads, queryBlocks] = scores.shape;
    super({
      inputs: {scores: {tensor: scores, components: 1}, blockLists: {tensor: blockLists, components: 1}},
      outputShape: [batch, heads, queryBlocks],
      outputType: 'float32',
      threads: 64,
      workgroups: batch * heads * queryBlocks,
      uniforms: {},
      variant: {ownCounts},
    });
  }

  protected shader({ownCounts}: {ownCounts: boolean}): string {
    return `
// A workgroup adds up the scores of one query block, once of all key blocks and once of those in its list; an invocation
// takes every 64th of either. The reductions hold the barriers, so every invocation gets there.
${workgroupIndex}
${workgroupReduce(64)}
fn main(index : i32) {
  let keyBlocks = uniforms.scoresShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var all = 0.0;
  for (var i = i32(localIndex); exists && i < keyBlocks; i += 64) {
    all += scores[row * keyBlocks + i];
  }
  var kept = 0.0;
  let list = row * (keyBlocks + 1);
  for (var entry = 1 + i32(localIndex); exists && entry <= blockLists[list]; entry += 64) {
    kept += scores[row * keyBlocks + blockLists[list + entry]];
  }
  let total = workgroupSum(all);
  let mass = workgroupSum(kept);
  if (localIndex == 0u && exists) {
    result[row] = ${ownCounts ? 'max(0.0, 1.0 - (total - mass))' : 'select(1.0, mass / total, total > 0.0)'};
  }
}`;
  }
}
