import {peakWeight} from '../../../attention/sampled_estimate.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';

/** The scores that {@link selectBlocks} chooses by. Rows as in the mass. */
export class SampledScoresProgram extends AttentionProgram<object> {
  constructor(mass: RowTexture) {
    super({
      name: 'SampledScores',
      inputs: {mass},
      output: {rows: mass.rows, columns: mass.columns},
      variant: {},
      fetches: 2,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up the parts of four scores.
void compute(int row, int texel) {
  ivec2 at = massAt(row);
  result0 = fetchMass(at, texel, 0) + ${peakWeight} * fetchMass(at, texel, 1);
}`;
  }
}
