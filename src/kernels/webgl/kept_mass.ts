import type {BlockGeometry} from '../block_geometry.js';
import type {AttentionContext} from './context.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {candidateBlocks, candidateUniforms} from './score_blocks.js';

/**
 * What selection kept of the attention that it expected, one value a query block and head: the scores of the selected
 * blocks that compete for a query block, as a share of the scores of all that compete; 1 where nothing competes.
 */
export function keptMass(
  context: AttentionContext,
  scores: RowTexture,
  blockLists: RowTexture,
  geometry: BlockGeometry,
  causal: boolean,
): RowTexture {
  return new KeptMassProgram(scores, blockLists, geometry, causal).run(context);
}

interface KeptMassVariant {
  causal: boolean;
}

export class KeptMassProgram extends AttentionProgram<KeptMassVariant> {
  constructor(scores: RowTexture, blockLists: RowTexture, geometry: BlockGeometry, causal: boolean) {
    super({
      inputs: {scores, blockLists},
      uniforms: candidateUniforms(geometry, causal),
      output: {rows: scores.rows, columns: 1},
      variant: {causal},
      fetches: 3 * scores.texels,
    });
  }

  protected shader({causal}: KeptMassVariant): string {
    return `
// A fragment adds up the scores of one query block, once of all key blocks that compete and once of those in its list.
${candidateBlocks(causal)}
void compute(int row, int texel) {
  int candidates = candidateBlocks(row % blocks);
  ivec2 scoresPlace = scoresAt(row);
  float total = 0.0;
  for (int i = 0; i < candidates; i++) {
    total += fetchScores(scoresPlace, i / 4, 0)[i % 4];
  }
  ivec2 list = blockListsAt(row);
  int count = int(fetchBlockLists(list, 0, 0).x);
  float kept = 0.0;
  for (int entry = 1; entry <= count; entry++) {
    int block = int(fetchBlockLists(list, entry / 4, 0)[entry % 4]);
    if (block < candidates) {
      kept += fetchScores(scoresPlace, block / 4, 0)[block % 4];
    }
  }
  // Scores without mass keep every block.
  result0 = vec4(total > 0.0 ? kept / total : 1.0);
}`;
  }
}
