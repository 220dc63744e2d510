/** What becomes of the sums of a product. */
export interface EpilogueVariant {
  /** Two sums for each output, of which SwiGLU makes one value in float16. */
  gated: boolean;
  biased: boolean;
  /** A residual is added. */
  added: boolean;
  /** Columns of a matrix of the output; 0: it is one matrix. */
  headDim: number;
}

/**
 * Shader text: `stagedVector(at)`, four sums; and `write(row, column, a, b)`, which writes eight, or `write(row, column, a0, b0, a1, b1)`
 * of eight gates and ups, from a column on that is a multiple of 8. Past the last row and the last column it writes nothing.
 */
export function epilogueText({gated, biased, added, headDim}: EpilogueVariant): string {
  const bias = (vector: string) => (biased ? ` + bias[${vector}]` : '');
  const stagedVector = `
fn stagedVector(at : i32) -> vec4<f32> {
  return vec4<f32>(staged[at], staged[at + 1], staged[at + 2], staged[at + 3]);
}`;
  if (gated) {
    return `${stagedVector}

fn swiglu(gate : vec4<f32>, up : vec4<f32>) -> vec4<f32> {
  return gate / (vec4<f32>(1.0) + exp(-gate)) * up;
}

fn write(row : i32, column : i32, gateA : vec4<f32>, gateB : vec4<f32>, upA : vec4<f32>, upB : vec4<f32>) {
  let outputs = uniforms.weightShape.x;
  if (row >= uniforms.xShape.x || column >= outputs) {
    return;
  }
  let gate = column / 4;
  let up = (outputs + column) / 4;
  let a = swiglu(gateA${bias('gate')}, upA${bias('up')});
  let b = swiglu(gateB${bias('gate + 1')}, upB${bias('up + 1')});
  result[(row * outputs + column) / 8] = float16Words(a, b);
}`;
  }
  const at = headDim
    ? `(column / ${headDim} * uniforms.xShape.x + row) * ${headDim / 4} + column % ${headDim} / 4`
    : '(row * outputs + column) / 4';
  const residual = (vector: string) => (added ? ` + residual[${vector}]` : '');
  return `${stagedVector}

fn write(row : i32, column : i32, a : vec4<f32>, b : vec4<f32>) {
  let outputs = uniforms.weightShape.x;
  if (row >= uniforms.xShape.x || column >= outputs) {
    return;
  }
  let at = ${at};
  result[at] = a${bias('column / 4')}${residual('at')};
  result[at + 1] = b${bias('column / 4 + 1')}${residual('at + 1')};
}`;
}
