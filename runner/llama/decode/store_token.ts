import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex} from '../../../src/internal';
import {rotatedRow} from './rotated_row';
import type {LayerInputs} from './layer_inputs';

interface StoreVariant {
  headDim: number;
  hasNorm: boolean;
}

/** The new token's key, rotated, and its value into a cache (see `StoreRowsProgram`), in the row of its position. */
export class StoreTokenProgram extends AttentionProgram<StoreVariant> {
  constructor({projected, position, rotary, norm, shape}: LayerInputs, cache: TensorInfo) {
    const {heads, keyValueHeads, headDim} = shape;
    super({
      name: 'StoreToken',
      inputs: {projected, position, cos: rotary.cos, signedSin: rotary.signedSin, norm: norm?.weight},
      outputShape: cache.shape,
      outputType: 'int32',
      threads: headDim / 2,
      workgroups: 2 * keyValueHeads,
      uniforms: {heads: {type: 'i32', value: heads}, epsilon: {type: 'f32', value: norm?.epsilon ?? 0}},
      variant: {headDim, hasNorm: norm !== undefined},
    });
  }

  protected shader({headDim, hasNorm}: StoreVariant): string {
    return `
// A workgroup takes the key or the value of one head, an invocation two values that stand in one word.
${workgroupIndex}
${rotatedRow(headDim, hasNorm)}

fn main(index : i32) {
  let local = i32(localIndex);
  let keyHeads = uniforms.outShape.y;
  let head = workgroupIndex();
  if (head >= 2 * keyHeads) {
    return;
  }
  // After the queries come the keys, then the values.
  let row = uniforms.heads + head;
  var pair = vec2<f32>(projected[row * ${headDim} + 2 * local], projected[row * ${headDim} + 2 * local + 1]);
  if (head < keyHeads) {
    let scale = rowScale(row);
    pair = vec2<f32>(rotated(row, 2 * local, scale), rotated(row, 2 * local + 1, scale));
  }
  result[(head * uniforms.outShape.z + position[0]) * ${headDim / 2} + local] = bitcast<i32>(pack2x16float(pair));
}`;
  }
}
