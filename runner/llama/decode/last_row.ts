import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex} from '../../../src/internal';

const THREADS = 64;

/** The row of the last of the tokens of a span (see `LayerInputs`): float32 `[rows, columns]` → `[1, columns]`. */
export class LastRowProgram extends AttentionProgram<object> {
  constructor(x: TensorInfo, span: TensorInfo) {
    const columns = x.shape[1];
    super({
      name: 'LastRow',
      inputs: {x, span},
      outputShape: [1, columns],
      threads: THREADS,
      workgroups: Math.ceil(columns / THREADS),
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation copies one value.
${workgroupIndex}
fn main(index : i32) {
  let column = workgroupIndex() * ${THREADS} + i32(localIndex);
  if (column < uniforms.outShape.y) {
    result[column] = x[(span[1] - 1) * uniforms.outShape.y + column];
  }
}`;
  }
}
