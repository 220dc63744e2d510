/**
 * Shader text: `rowScale(row)`, the divisor of the RMS norm of a head's row of `projected`, 1 where the architecture has none; and
 * `rotated(row, column, scale)`, a value of the row, normed and turned by `position`. Reads the inputs of `LayerInputs`.
 */
export function rotatedRow(headDim: number, hasNorm: boolean): string {
  const normed = (column: string) =>
    `projected[row * ${headDim} + ${column}]${hasNorm ? ` * scale * norm[row * ${headDim} + ${column}]` : ''}`;
  return `
fn rowScale(row : i32) -> f32 {
  ${
    hasNorm
      ? `var sum = 0.0;
  for (var i = 0; i < ${headDim}; i++) {
    let value = projected[row * ${headDim} + i];
    sum = fma(value, value, sum);
  }
  return inverseSqrt(sum / ${headDim}.0 + uniforms.epsilon);`
      : 'return 1.0;'
  }
}

fn rotated(row : i32, column : i32, scale : f32) -> f32 {
  let partner = (column + ${headDim / 2}) % ${headDim};
  let angle = position[0] * ${headDim} + column;
  return ${normed('column')} * cos[angle] + ${normed('partner')} * signedSin[angle];
}`;
}
