import type {BlockGeometry} from '../block_geometry.js';

/** What selection hands to attention: keys in permuted order and the block lists (see `block_geometry.ts`). */
export interface BlockPlan {
  keyIndices: Int32Array;
  blockLists: Int32Array;
}

/**
 * Writes the keys that a query row sees, by their original index, to `positions`; returns how many. With a plan they
 * belong to the blocks in the row's list, without one every key counts.
 */
export function visibleKeys(
  positions: Int32Array,
  {length, blockSize, blocks}: BlockGeometry,
  head: number,
  row: number,
  causal: boolean,
  plan?: BlockPlan,
): number {
  let visible = 0;
  const see = (position: number) => {
    if (!causal || position <= row) {
      positions[visible++] = position;
    }
  };
  if (plan) {
    const list = (head * blocks + Math.floor(row / blockSize)) * (blocks + 1);
    for (let entry = 1; entry <= plan.blockLists[list]; ++entry) {
      const start = plan.blockLists[list + entry] * blockSize;
      for (let i = start; i < Math.min(start + blockSize, length); ++i) {
        see(plan.keyIndices[head * length + i]);
      }
    }
  } else {
    for (let position = 0; position < (causal ? row + 1 : length); ++position) {
      see(position);
    }
  }
  return visible;
}
