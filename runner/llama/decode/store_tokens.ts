import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, localOf, workgroupIndex} from '../../../src/internal';
import {rotatedRow} from './rotated_row';
import type {LayerInputs} from './layer_inputs';

interface StoreVariant {
  headDim: number;
  hasNorm: boolean;
}

/** The new tokens' keys, rotated, and their values into a cache (see `StoreRowsProgram`), in the rows of their positions. */
export class StoreTokensProgram extends AttentionProgram<StoreVariant> {
  constructor({projected, span, rotary, norm, shape}: LayerInputs, cache: TensorInfo) {
    const {heads, keyValueHeads, headDim} = shape;
    super({
      name: 'StoreTokens',
      inputs: {projected, span, cos: rotary.cos, signedSin: rotary.signedSin, norm: norm?.weight},
      outputShape: cache.shape,
      outputType: 'int32',
      threads: headDim / 2,
      workgroups: projected.shape[0] * 2 * keyValueHeads,
      uniforms: {heads: {type: 'i32', value: heads}, epsilon: {type: 'f32', value: norm?.epsilon ?? 0}},
      variant: {headDim, hasNorm: norm !== undefined},
    });
  }

  protected shader({headDim, hasNorm}: StoreVariant): string {
    return `
// A workgroup takes the key or the value of one head of one token, an invocation two values that stand in one word.
${workgroupIndex}
${rotatedRow(headDim, hasNorm)}

fn main(index : i32) {
  ${localOf(headDim / 2)}
  let keyHeads = uniforms.outShape.y;
  let token = workgroupIndex() / (2 * keyHeads);
  if (token >= span[1]) {
    return;
  }
  let stored = workgroupIndex() % (2 * keyHeads);
  // After the queries come the keys, then the values.
  let head = uniforms.heads + stored;
  let first = rowOf(token, head) + 2 * local;
  var pair = vec2<f32>(projected[first], projected[first + 1]);
  if (stored < keyHeads) {
    let scale = rowScale(token, head);
    pair = vec2<f32>(rotated(token, head, 2 * local, scale), rotated(token, head, 2 * local + 1, scale));
  }
  let row = stored * uniforms.outShape.z + span[0] + token;
  result[row * ${headDim / 2} + local] = bitcast<i32>(pack2x16float(pair));
}`;
  }
}
