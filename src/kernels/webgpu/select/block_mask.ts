import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {workgroupIndex} from '../wgsl/rows.js';

/** Block lists as a dense mask: bool `[batch, heads, queryBlocks, keyBlocks]`, true where the key block is selected. */
export function blockMask({backend}: WebGPUCall, blockLists: TensorInfo): TensorInfo {
  return new BlockMaskProgram(blockLists).run(backend);
}

export class BlockMaskProgram extends AttentionProgram<object> {
  constructor(blockLists: TensorInfo) {
    const [batch, heads, queryBlocks, listSize] = blockLists.shape;
    super({
      name: 'BlockMask',
      inputs: {blockLists},
      outputShape: [batch, heads, queryBlocks, listSize - 1],
      outputType: 'bool',
      workgroups: batch * heads * queryBlocks,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup writes the row of one query block: zeros, then a one for each entry of its list.
${workgroupIndex}
fn main(index : i32) {
  let blocks = uniforms.outShape.w;
  let row = workgroupIndex();
  let exists = row < uniforms.outShape.x * uniforms.outShape.y * uniforms.outShape.z;
  for (var i = i32(localIndex); i < blocks && exists; i += 64) {
    result[row * blocks + i] = 0;
  }
  // Barrier: a one must not be overwritten by another invocation's zero.
  storageBarrier();
  for (var i = i32(localIndex); exists && i < blockLists[row * (blocks + 1)]; i += 64) {
    result[row * blocks + blockLists[row * (blocks + 1) + 1 + i]] = 1;
  }
}`;
  }
}
