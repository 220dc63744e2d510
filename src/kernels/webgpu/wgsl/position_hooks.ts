/** Expression: the position of a row of the query (an expression) among the keys, with a causal mask and without. */
export const positionOf = (row: string): string => `uniforms.firstPosition + ${row}`;

/** The `ScoreHook` of slopes (ALiBi): the score falls by the row's slope for each position between row and key. */
export const slopesHook = (causal: boolean) => ({
  functions: '',
  /** @param slope expression, in units of log2. */
  ofRow: (head: string, row: string, slope = `headForms[${head}].y`) => `let slope = ${slope};
      let slopedPosition = ${positionOf(row)};`,
  scoreOf: (score: string, position: string) => {
    const distance = `slopedPosition - (${position})`;
    return `${score} - slope * f32(${causal ? distance : `abs(${distance})`})`;
  },
});

/**
 * The same for keys that stand one behind the other, none of them behind the row: turning a position into a number costs as much as an
 * exponential.
 */
export const slopesInTile = {
  /** @param first expression: the position from which those of the scores count. */
  ofRow: (first: string) => `let slopedStart = slope * f32(${first} - slopedPosition);`,
  scoreOf: (score: string, offset: number) => `fma(slope, ${offset}.0, slopedStart) + ${score}`,
};

/** The `ScoreHook` of a window: keys before it are not seen. Those after the row are hidden as by a causal mask. */
export const windowHook = {
  functions: '',
  ofRow: (_head: string, row: string) => `let firstVisible = ${positionOf(row)} - uniforms.window + 1;`,
  scoreOf: (score: string, position: string) => `select(${score}, masked, ${position} < firstVisible)`,
};
