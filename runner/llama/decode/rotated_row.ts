/**
 * Shader text: `rowScale(token, head)`, the divisor of the RMS norm of a head's row of `projected`, 1 where the architecture has none;
 * and `rotated(token, head, column, scale)`, a value of the row, normed and turned by the token's position. Reads the inputs of
 * `LayerInputs`. Key heads come after the query heads.
 */
export function rotatedRow(headDim: number, hasNorm: boolean): string {
  const normed = (column: string) =>
    `projected[first + ${column}]${hasNorm ? ` * scale * norm[head * ${headDim} + ${column}]` : ''}`;
  return `
fn rowOf(token : i32, head : i32) -> i32 {
  return token * uniforms.projectedShape.y + head * ${headDim};
}

fn rowScale(token : i32, head : i32) -> f32 {
  ${
    hasNorm
      ? `let first = rowOf(token, head);
  var sum = 0.0;
  for (var i = 0; i < ${headDim}; i++) {
    let value = projected[first + i];
    sum = fma(value, value, sum);
  }
  return inverseSqrt(sum / ${headDim}.0 + uniforms.epsilon);`
      : 'return 1.0;'
  }
}

fn rotated(token : i32, head : i32, column : i32, scale : f32) -> f32 {
  let first = rowOf(token, head);
  let partner = (column + ${headDim / 2}) % ${headDim};
  let angle = (span[0] + token) * ${headDim} + column;
  return ${normed('column')} * cos[angle] + ${normed('partner')} * signedSin[angle];
}`;
}
