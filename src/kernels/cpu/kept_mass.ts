import type {BlockGeometry} from '../block_geometry.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, queryBlocks]`, the scores of the selected
 * blocks as a share of all scores of a query block; 1 where there are none. Blocks that do not compete have score 0. With
 * `ownCounts` (see {@link selectBlocks}) scores are shares of all attention, of which those of the others are lost; they
 * can add up to more than 1.
 */
export function keptMass(
  scores: ArrayLike<number>,
  blockLists: Int32Array,
  {batch, heads, queryBlocks, keyBlocks}: BlockGeometry,
  ownCounts = false,
): Float32Array {
  const mass = new Float32Array(batch * heads * queryBlocks);
  for (let row = 0; row < mass.length; ++row) {
    let total = 0;
    for (let i = 0; i < keyBlocks; ++i) {
      total += scores[row * keyBlocks + i];
    }
    let kept = 0;
    const list = row * (keyBlocks + 1);
    for (let entry = 1; entry <= blockLists[list]; ++entry) {
      kept += scores[row * keyBlocks + blockLists[list + entry]];
    }
    const share = total > 0 ? kept / total : 1;
    mass[row] = ownCounts ? Math.max(0, 1 - (total - kept)) : share;
  }
  return mass;
}
