import type {BlockGeometry} from '../../../attention/block_geometry.js';

/** Block lists as a dense mask: `[batch, heads, queryBlocks, keyBlocks]`, 1 where the key block is selected. */
export function blockMask(blockLists: Int32Array, {batch, heads, queryBlocks, keyBlocks}: BlockGeometry): Uint8Array {
  const mask = new Uint8Array(batch * heads * queryBlocks * keyBlocks);
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const list = row * (keyBlocks + 1);
    for (let entry = 1; entry <= blockLists[list]; ++entry) {
      mask[row * keyBlocks + blockLists[list + entry]] = 1;
    }
  }
  return mask;
}
