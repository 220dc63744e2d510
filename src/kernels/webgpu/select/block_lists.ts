import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {workgroupIndex} from '../wgsl/rows.js';
import {workgroupCount} from '../wgsl/workgroup_reduce.js';

/**
 * A dense mask, bool `[batch, heads, queryBlocks, keyBlocks]`, as block lists (the form is described in
 * `block_geometry.ts`): the inverse of `blockMask`.
 */
export function blockLists({backend}: WebGPUCall, blockMask: TensorInfo): TensorInfo {
  return new BlockListsProgram(blockMask).run(backend);
}

export class BlockListsProgram extends AttentionProgram<object> {
  constructor(blockMask: TensorInfo) {
    const [batch, heads, queryBlocks, keyBlocks] = blockMask.shape;
    super({
      name: 'BlockLists',
      inputs: {blockMask: {tensor: blockMask}},
      outputShape: [batch, heads, queryBlocks, keyBlocks + 1],
      outputType: 'int32',
      threads: 128,
      workgroups: batch * heads * queryBlocks,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup writes the list of one query block, an invocation looks at every 128th key block. The kept blocks of a round
// find their places in the list by a prefix sum over the invocations.
${workgroupIndex}
const threads = 128;
${workgroupCount}
fn main(index : i32) {
  let local = i32(localIndex);
  let blocks = uniforms.blockMaskShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  var kept = 0;
  for (var base = 0; base < blocks; base += threads) {
    let i = base + local;
    var keep = false;
    if (exists && i < blocks) {
      keep = blockMask[row * blocks + i] != 0;
    }
    let place = kept + countUpTo(keep);
    if (keep) {
      result[row * (blocks + 1) + place] = i;
    }
    kept += counts[threads - 1];
    // Barrier: the next round overwrites the counts.
    workgroupBarrier();
  }
  if (local == 0 && exists) {
    result[row * (blocks + 1)] = kept;
  }
}`;
  }
}
