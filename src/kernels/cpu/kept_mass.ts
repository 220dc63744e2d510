import type {BlockGeometry} from '../block_geometry.js';
import {scoredBlocks} from '../block_geometry.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, blocks]`, the scores of the selected
 * blocks that compete for a query block, as a share of the scores of all that compete; 1 where nothing competes.
 */
export function keptMass(
  scores: ArrayLike<number>,
  blockLists: Int32Array,
  geometry: BlockGeometry,
  causal: boolean,
): Float32Array {
  const {batch, heads, blocks} = geometry;
  const mass = new Float32Array(batch * heads * blocks);
  for (let row = 0; row < mass.length; ++row) {
    const candidates = scoredBlocks(geometry, causal, row % blocks);
    let total = 0;
    for (let i = 0; i < candidates; ++i) {
      total += scores[row * blocks + i];
    }
    const list = row * (blocks + 1);
    let kept = 0;
    for (let entry = 1; entry <= blockLists[list] && blockLists[list + entry] < candidates; ++entry) {
      kept += scores[row * blocks + blockLists[list + entry]];
    }
    // Scores without mass keep every block.
    mass[row] = total > 0 ? kept / total : 1;
  }
  return mass;
}
