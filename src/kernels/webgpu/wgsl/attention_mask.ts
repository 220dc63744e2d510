export type MaskType = 'bool' | 'float32';

/** A mask tensor, whose dimensions of 1 broadcast: the `ScoreHook` of a row's score of a key with what the mask says of the two. */
export function maskHook(mask: MaskType) {
  const score =
    mask === 'bool'
      ? 'select(masked, score, x != 0)'
      : // −Infinity, told by its bits, hides the key; no finite value does, so the scores stay far above masked.
        `select(score + ${Math.LOG2E}f * select(x, -6e37f, x < -6e37f), masked, bitcast<u32>(x) == 0xff800000u)`;
  return {
    functions: `
// Where the mask of a row starts. Rows past the end read some row that exists.
fn maskRow(head : i32, row : i32) -> i32 {
  let heads = uniforms.heads;
  let last = uniforms.maskShape - 1;
  let entry = min(head / heads, last.x) * uniforms.maskShape.y + min(head % heads, last.y);
  return (entry * uniforms.maskShape.z + min(row, last.z)) * uniforms.maskShape.w;
}

fn maskedScore(score : f32, maskStart : i32, position : i32) -> f32 {
  let x = mask[maskStart + min(position, uniforms.maskShape.w - 1)];
  return ${score};
}`,
    ofRow: (head: string, row: string) => `let maskStart = maskRow(${head}, ${row});`,
    scoreOf: (score: string, position: string) => `maskedScore(${score}, maskStart, ${position})`,
  };
}
