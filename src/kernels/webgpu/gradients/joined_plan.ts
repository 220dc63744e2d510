import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, i32} from '../runtime/program.js';

/**
 * A plan, or the same by keys, in one buffer: every device has eight storage buffers, and the gradients take seven others. int32, flat: the
 * key order, then the block lists or query lists.
 */
export class JoinedPlanProgram extends AttentionProgram<object> {
  constructor(keyIndices: TensorInfo, lists: TensorInfo) {
    const [keys, entries] = [keyIndices, lists].map(({shape}) => shape.reduce((a, b) => a * b));
    super({
      name: 'JoinedPlan',
      inputs: {keyIndices, lists},
      outputShape: [keys + entries],
      outputType: 'int32',
      uniforms: {keys: i32(keys)},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation copies one number.
fn main(index : i32) {
  if (index < uniforms.keys) {
    result[index] = keyIndices[index];
  } else if (index < uniforms.invocations) {
    result[index] = lists[index - uniforms.keys];
  }
}`;
  }
}
