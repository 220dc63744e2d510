import type {AttentionContext} from './context.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';

/**
 * What selection kept of the attention that it expected, one value a query block and head: the scores of the selected
 * blocks as a share of all scores of a query block; 1 where there are none. Blocks that do not compete have score 0. With
 * `ownCounts` (see {@link selectBlocks}) scores are shares of all attention, of which those of the others are lost; they
 * can add up to more than 1.
 */
export function keptMass(
  context: AttentionContext,
  scores: RowTexture,
  blockLists: RowTexture,
  ownCounts = false,
): RowTexture {
  return new KeptMassProgram(scores, blockLists, ownCounts).run(context);
}

export class KeptMassProgram extends AttentionProgram<{ownCounts: boolean}> {
  constructor(scores: RowTexture, blockLists: RowTexture, ownCounts: boolean) {
    super({
      inputs: {scores, blockLists},
      uniforms: {},
      output: {rows: scores.rows, columns: 1},
      variant: {ownCounts},
      fetches: 9 * scores.texels,
    });
  }

  protected shader({ownCounts}: {ownCounts: boolean}): string {
    return `
// A fragment adds up the scores of one query block, once of all key blocks and once of those in its list. What a row of
// scores has beyond its columns is 0.
void compute(int row, int texel) {
  ivec2 scoresPlace = scoresAt(row);
  vec4 sums = vec4(0.0);
  for (int t = 0; t < scoresTexels; t++) {
    sums += fetchScores(scoresPlace, t, 0);
  }
  float total = dot(sums, vec4(1.0));
  ivec2 list = blockListsAt(row);
  int count = int(fetchBlockLists(list, 0, 0).x);
  float kept = 0.0;
  for (int entry = 1; entry <= count; entry++) {
    int block = int(fetchBlockLists(list, entry / 4, 0)[entry % 4]);
    kept += fetchScores(scoresPlace, block / 4, 0)[block % 4];
  }
  result0 = vec4(${ownCounts ? 'max(0.0, 1.0 - (total - kept))' : 'total > 0.0 ? kept / total : 1.0'});
}`;
  }
}
