import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, i32} from '../runtime/program.js';

/**
 * One of the two gradients of `GradientKeyProgram`: float32 `shape`, of key or value, from value `first` on; added up over
 * the heads that share keys where each of them is an owner.
 */
export class SumHeadsProgram extends AttentionProgram<object> {
  constructor(gradients: TensorInfo, {first, owners, shape}: {first: number; owners: number; shape: number[]}) {
    const [batch, keyValueHeads] = shape;
    super({
      name: 'SumHeads',
      inputs: {gradients},
      outputShape: shape,
      uniforms: {first: i32(first), sharing: i32(owners / (batch * keyValueHeads))},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation adds up one value over the heads that share it, which lie one after another.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    let headSize = uniforms.outShape.z * uniforms.outShape.w;
    let at = uniforms.first + (index / headSize) * uniforms.sharing * headSize + index % headSize;
    var sum = 0.0;
    for (var head = 0; head < uniforms.sharing; head++) {
      sum += gradients[at + head * headSize];
    }
    result[index] = sum;
  }
}`;
  }
}
