import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import {AttentionProgram} from '../runtime/program.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';
import {readRow, rowComponents} from '../wgsl/rows.js';

/**
 * Shader text: `saturated(x)`, values as float16 holds them, the largest of its numbers where they are beyond. What is not finite
 * stays so; by its bits, since compilers may take it that there is none.
 */
export const saturate = `
fn saturated(x : vec4<f32>) -> vec4<f32> {
  let isFinite = (bitcast<vec4<u32>>(x) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
  return select(x, clamp(x, vec4<f32>(-65504.0), vec4<f32>(65504.0)), isFinite);
}`;

/**
 * Rows of keys or values as the matrix units take them: float16, two a word, filled up with zeros to whole fragments: int32 `[rows,
 * paddedHeadDim / 2]`. Each is read by many workgroups.
 */
export class Float16RowsProgram extends AttentionProgram<{dim: number}> {
  constructor(x: TensorInfo) {
    const dim = x.shape[x.shape.length - 1];
    super({
      name: 'Float16Rows',
      inputs: {x: {tensor: x, components: rowComponents(dim)}},
      outputShape: [util.sizeFromShape(x.shape) / dim, paddedHeadDim(dim) / 2],
      outputType: 'int32',
      outputComponents: 4,
      variant: {dim},
    });
  }

  protected shader({dim}: {dim: number}): string {
    const words = paddedHeadDim(dim) / 8;
    return `
// An invocation brings eight values of a row to float16.
${readRow('readValues', 'x', dim, paddedHeadDim(dim))}
${saturate}

fn packed(x : vec4<f32>) -> vec2<i32> {
  let y = saturated(x);
  return bitcast<vec2<i32>>(vec2<u32>(pack2x16float(y.xy), pack2x16float(y.zw)));
}

fn main(index : i32) {
  if (index < uniforms.invocations) {
    let row = index / ${words};
    let vector = 2 * (index % ${words});
    result[index] = vec4<i32>(packed(readValues(row, vector)), packed(readValues(row, vector + 1)));
  }
}`;
  }
}
