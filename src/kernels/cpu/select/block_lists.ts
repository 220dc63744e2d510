import type {BlockGeometry} from '../../../attention/block_geometry.js';

/** A dense mask, `[batch, heads, queryBlocks, keyBlocks]`, as block lists: the inverse of `blockMask`. */
export function blockLists(
  blockMask: ArrayLike<number>,
  {batch, heads, queryBlocks, keyBlocks}: BlockGeometry,
): Int32Array {
  const lists = new Int32Array(batch * heads * queryBlocks * (keyBlocks + 1));
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const list = row * (keyBlocks + 1);
    for (let keyBlock = 0; keyBlock < keyBlocks; ++keyBlock) {
      if (blockMask[row * keyBlocks + keyBlock]) {
        lists[list + ++lists[list]] = keyBlock;
      }
    }
  }
  return lists;
}

/** The key blocks in the list of a row of `[batch · heads · queryBlocks]`. */
export function selectedBlocks(blockLists: Int32Array, row: number, keyBlocks: number): Int32Array {
  const first = row * (keyBlocks + 1) + 1;
  return blockLists.subarray(first, first + blockLists[first - 1]);
}
