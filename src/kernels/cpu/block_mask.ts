import type {BlockGeometry} from '../block_geometry.js';

/** Block lists as a dense mask: `[batch, heads, blocks, blocks]`, 1 where the key block is selected. */
export function blockMask(blockLists: Int32Array, {batch, heads, blocks}: BlockGeometry): Uint8Array {
  const mask = new Uint8Array(batch * heads * blocks * blocks);
  for (let row = 0; row < batch * heads * blocks; ++row) {
    const list = row * (blocks + 1);
    for (let entry = 1; entry <= blockLists[list]; ++entry) {
      mask[row * blocks + blockLists[list + entry]] = 1;
    }
  }
  return mask;
}
