import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram} from '../runtime/program.js';

/**
 * The transpose of the block lists: int32 `[batch, heads, key blocks, query blocks + 1]`, for each block of permuted keys
 * the number of query blocks that attend to it, then these in ascending order; what follows them is undefined.
 */
export class QueryListsProgram extends AttentionProgram<object> {
  constructor(blockMask: TensorInfo) {
    const [batch, heads, queryBlocks, keyBlocks] = blockMask.shape;
    super({
      name: 'QueryLists',
      inputs: {blockMask},
      outputShape: [batch, heads, keyBlocks, queryBlocks + 1],
      outputType: 'int32',
      invocations: batch * heads * keyBlocks,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation writes the list of one key block, going down its column of the mask; neighbours read neighbours.
fn main(list : i32) {
  if (list < uniforms.invocations) {
    let keyBlocks = uniforms.outShape.z;
    let queryBlocks = uniforms.blockMaskShape.z;
    let head = list / keyBlocks;
    var count = 0;
    for (var queryBlock = 0; queryBlock < queryBlocks; queryBlock++) {
      if (blockMask[(head * queryBlocks + queryBlock) * keyBlocks + list % keyBlocks] != 0) {
        count += 1;
        result[list * (queryBlocks + 1) + count] = queryBlock;
      }
    }
    result[list * (queryBlocks + 1)] = count;
  }
}`;
  }
}
