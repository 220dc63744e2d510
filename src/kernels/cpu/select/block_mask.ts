import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {selectedBlocks} from './block_lists.js';

/** Block lists as a dense mask: `[batch, heads, queryBlocks, keyBlocks]`, 1 where the key block is selected. */
export function blockMask(blockLists: Int32Array, {batch, heads, queryBlocks, keyBlocks}: BlockGeometry): Uint8Array {
  const mask = new Uint8Array(batch * heads * queryBlocks * keyBlocks);
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    selectedBlocks(blockLists, row, keyBlocks).forEach((block) => (mask[row * keyBlocks + block] = 1));
  }
  return mask;
}
