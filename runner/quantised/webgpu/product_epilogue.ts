import type {Activation} from '../../llama/kernels/gated_activation';
import {activationText} from '../../llama/kernels/webgpu/activation_text';

/** What becomes of the sums of a product. */
export interface EpilogueVariant {
  /** Two sums for each output, of which one value is made by this activation of the first. */
  gated?: Activation;
  biased: boolean;
  /** A residual is added. */
  added: boolean;
  /** Columns of a matrix of the output; 0: it is one matrix. */
  headDim: number;
}

/**
 * Shader text: `write(row, column, sums)`, which writes four values from a column on that is a multiple of 4; of gates and ups
 * `write(row, column, gates, ups)`, in float16 `write(row, column, gates0, gates1, ups0, ups1)` eight from a multiple of 8 on. Past the
 * last row and the last column it writes nothing.
 */
export function epilogueText({gated, biased, added, headDim}: EpilogueVariant, float16: boolean): string {
  const bias = (vector: string) => (biased ? ` + bias[${vector}]` : '');
  const write = (sums: string, body: string) => `
fn write(row : i32, column : i32, ${sums}) {
  let rows = uniforms.outShape.${headDim ? 'y' : 'x'};
  let outputs = ${headDim ? `uniforms.outShape.x * ${headDim}` : `uniforms.outShape.y${gated && float16 ? ' * 2' : ''}`};
  if (row >= rows || column >= outputs) {
    return;
  }
  ${body}
}`;
  if (!gated) {
    const at = headDim
      ? `(column / ${headDim} * rows + row) * ${headDim / 4} + column % ${headDim} / 4`
      : '(row * outputs + column) / 4';
    return write(
      'sums : vec4<f32>',
      `let at = ${at};
  result[at] = sums${bias('column / 4')}${added ? ' + residual[at]' : ''};`,
    );
  }
  const gatedValue = (i: string, vector: string) =>
    `gatedBy(gates${i}${bias(vector)}, ups${i}${bias(`outputs / 4 + ${vector}`)})`;
  return `
fn gatedBy(gates : vec4<f32>, ups : vec4<f32>) -> vec4<f32> {
  return ${activationText(gated, 'gates', 'vec4<f32>(1.0)')} * ups;
}
${
  float16
    ? write(
        'gates0 : vec4<f32>, gates1 : vec4<f32>, ups0 : vec4<f32>, ups1 : vec4<f32>',
        `result[(row * outputs + column) / 8] = float16Words(${gatedValue('0', 'column / 4')}, ${gatedValue('1', 'column / 4 + 1')});`,
      )
    : write(
        'gates : vec4<f32>, ups : vec4<f32>',
        `result[(row * outputs + column) / 4] = ${gatedValue('', 'column / 4')};`,
      )
}`;
}
