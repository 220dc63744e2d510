import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {AttentionProgram, i32} from '../runtime/program.js';
import {headVectors, rowInputs} from '../wgsl/rows.js';
import {mergeParts, noScores, stateVectors} from '../wgsl/softmax_state.js';

interface LogSumExpVariant extends Pick<BlockGeometry, 'valueDim'> {
  sinks: boolean;
}

/** Of states: the natural logarithm of each row's sum of exp(score), float32 `[batch, heads, queryLength]`. */
export class LogSumExpProgram extends AttentionProgram<LogSumExpVariant> {
  /** @param headForms where they hold sinks. */
  constructor(
    states: TensorInfo,
    {batch, heads, queryLength, valueDim}: Pick<BlockGeometry, 'batch' | 'heads' | 'queryLength' | 'valueDim'>,
    headForms?: TensorInfo,
  ) {
    super({
      name: 'LogSumExp',
      inputs: rowInputs({states, ...(headForms && {headForms})}),
      outputShape: [batch, heads, queryLength],
      uniforms: {queryLength: i32(queryLength)},
      variant: {valueDim, sinks: headForms !== undefined},
    });
  }

  protected shader({valueDim, sinks}: LogSumExpVariant): string {
    const state = `states[(row * chunks + i) * ${stateVectors(valueDim)} + ${headVectors(valueDim)}]`;
    return `
// An invocation puts the states of the chunks of one row together.${noScores}

fn main(row : i32) {
  if (row < uniforms.invocations) {
    let chunks = uniforms.statesShape.y;
    ${mergeParts('chunks', `${state}.x`, `${state}.y`)}
    ${
      sinks
        ? `let sink = headForms[row / uniforms.queryLength].z;
    let top = max(total, sink);
    result[row] = ${Math.LN2}f * (top + log2(sum * exp2(total - top) + exp2(sink - top)));`
        : `// A row that saw nothing: the bits of -Infinity, which WGSL takes for no constant.
    var nothing = 0xff800000u;
    result[row] = select(${Math.LN2}f * (total + log2(sum)), bitcast<f32>(nothing), sum == 0.0);`
    }
  }
}`;
  }
}
