import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {PlanRule} from '../../../attention/attention_call.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {workgroupIndex} from '../wgsl/rows.js';
import {workgroupReduce} from '../wgsl/workgroup_reduce.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, queryBlocks]`. By the pooled estimate, whose
 * masses are shares of what goes to the blocks that compete, the share of the selected ones; 1 where nothing competes. By the
 * sampled one, whose masses are shares of all attention, what the others leave of 1; they can add up to more.
 *
 * @param masses `[batch, heads, queryBlocks, keyBlocks]`, 0 for blocks that do not compete.
 */
export function keptMass(
  {backend}: WebGPUCall,
  {estimate}: Pick<PlanRule, 'estimate'>,
  masses: TensorInfo,
  blockLists: TensorInfo,
): TensorInfo {
  return new KeptMassProgram(masses, blockLists, estimate).run(backend);
}

export class KeptMassProgram extends AttentionProgram<Pick<PlanRule, 'estimate'>> {
  constructor(masses: TensorInfo, blockLists: TensorInfo, estimate: PlanRule['estimate']) {
    const [batch, heads, queryBlocks] = masses.shape;
    super({
      name: 'KeptMass',
      inputs: {masses, blockLists},
      outputShape: [batch, heads, queryBlocks],
      workgroups: batch * heads * queryBlocks,
      variant: {estimate},
    });
  }

  protected shader({estimate}: Pick<PlanRule, 'estimate'>): string {
    return `
// A workgroup adds up the masses of one query block, once of all key blocks and once of those in its list; an invocation
// takes every 64th of either. The reductions hold the barriers, so every invocation gets there.
${workgroupIndex}
${workgroupReduce(64)}
fn main(index : i32) {
  let keyBlocks = uniforms.massesShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var all = 0.0;
  for (var i = i32(localIndex); exists && i < keyBlocks; i += 64) {
    all += masses[row * keyBlocks + i];
  }
  var kept = 0.0;
  let list = row * (keyBlocks + 1);
  for (var entry = 1 + i32(localIndex); exists && entry <= blockLists[list]; entry += 64) {
    kept += masses[row * keyBlocks + blockLists[list + entry]];
  }
  let total = workgroupSum(all);
  let keptSum = workgroupSum(kept);
  if (localIndex == 0u && exists) {
    result[row] = ${estimate === 'sampled' ? 'max(0.0, 1.0 - (total - keptSum))' : 'select(1.0, keptSum / total, total > 0.0)'};
  }
}`;
  }
}
