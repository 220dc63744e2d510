import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import {AttentionProgram, i32} from '../runtime/program.js';
import {workgroupIndex} from '../wgsl/rows.js';

/**
 * One of the two gradients of `GradientKeyProgram`: float32 `shape`, of key or value, from value `first` on; added up over
 * the heads that share keys where each of them is an owner.
 */
export class SumHeadsProgram extends AttentionProgram<object> {
  constructor(gradients: TensorInfo, {first, owners, shape}: {first: number; owners: number; shape: number[]}) {
    const [batch, keyValueHeads] = shape;
    super({
      name: 'SumHeads',
      inputs: {gradients: {tensor: gradients}},
      outputShape: shape,
      threads: 64,
      workgroups: Math.ceil(util.sizeFromShape(shape) / 64),
      uniforms: {first: i32(first), sharing: i32(owners / (batch * keyValueHeads))},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation adds up one value over the heads that share it, which lie one after another.
${workgroupIndex}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let headSize = uniforms.outShape.z * uniforms.outShape.w;
  if (i < uniforms.outShape.x * uniforms.outShape.y * headSize) {
    let at = uniforms.first + (i / headSize) * uniforms.sharing * headSize + i % headSize;
    var sum = 0.0;
    for (var head = 0; head < uniforms.sharing; head++) {
      sum += gradients[at + head * headSize];
    }
    result[i] = sum;
  }
}`;
  }
}
