import type {BlockGeometry} from '../block_geometry.js';
import {scoredBlocks, visibleBlocks} from '../block_geometry.js';

/**
 * Stage 3, select blocks (paper section 3.3): block lists, int32 `[batch, heads, queryBlocks, keyBlocks + 1]` (the form is
 * described in `block_geometry.ts`).
 *
 * A query block keeps the shortest prefix of its key blocks, by descending score, whose scores add up to the
 * threshold; and always the blocks of its own segment (under a causal mask; of every segment that its rows stand in) and
 * the block that holds original key 0, the attention sink.
 */
export function selectBlocks(
  scores: ArrayLike<number>,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  threshold: number,
  causal: boolean,
): Int32Array {
  const {batch, heads, keyLength, blockSize, queryBlocks, keyBlocks} = geometry;
  const lists = new Int32Array(batch * heads * queryBlocks * (keyBlocks + 1));
  for (let head = 0; head < batch * heads; ++head) {
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    const sinkBlock = Math.floor(order.indexOf(0) / blockSize);
    for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const row = head * queryBlocks + queryBlock;
      const candidates = scoredBlocks(geometry, causal, queryBlock);
      const byScore = Array.from({length: candidates}, (_, i) => i);
      byScore.sort((a, b) => scores[row * keyBlocks + b] - scores[row * keyBlocks + a] || a - b);
      const selected = new Set([sinkBlock]);
      let sum = 0;
      for (const keyBlock of byScore) {
        if (sum >= threshold) {
          break;
        }
        selected.add(keyBlock);
        sum += scores[row * keyBlocks + keyBlock];
      }
      for (let own = candidates; own < visibleBlocks(geometry, causal, queryBlock); ++own) {
        selected.add(own);
      }
      const list = lists.subarray(row * (keyBlocks + 1), (row + 1) * (keyBlocks + 1));
      list[0] = selected.size;
      list.set(
        Array.from(selected).sort((a, b) => a - b),
        1,
      );
    }
  }
  return lists;
}
