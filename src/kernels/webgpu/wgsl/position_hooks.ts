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

/** The `ScoreHook` of a window: keys before it are not seen. Those after the row are hidden as by a causal mask. */
export const windowHook = {
  functions: '',
  ofRow: (_head: string, row: string) => `let firstVisible = ${positionOf(row)} - uniforms.window + 1;`,
  scoreOf: (score: string, position: string) => `select(${score}, masked, ${position} < firstVisible)`,
};
