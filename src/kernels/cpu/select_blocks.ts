import type {BlockGeometry} from '../block_geometry.js';
import {scoredBlocks, visibleBlocks} from '../block_geometry.js';

/**
 * Stage 3, select blocks (paper section 3.3): block lists, int32 `[batch, heads, queryBlocks, keyBlocks + 1]` (the form is
 * described in `block_geometry.ts`).
 *
 * A query block keeps the shortest prefix of its key blocks, by descending score, whose scores add up to the
 * threshold; and always the blocks of its own segment (under a causal mask; of every segment that its rows stand in) and
 * the block that holds original key 0, the attention sink.
 *
 * With `ownCounts` scores are shares of all attention: what a row lacks to 1 goes to the own segment and counts as kept, but
 * never for the block of the highest score, which is kept at any threshold above 0.
 */
export function selectBlocks(
  scores: ArrayLike<number>,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  threshold: number,
  causal: boolean,
  ownCounts = false,
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
      const scoreOf = (keyBlock: number) => scores[row * keyBlocks + keyBlock];
      const own = ownCounts ? 1 - byScore.reduce((sum, keyBlock) => sum + scoreOf(keyBlock), 0) : 0;
      let before = 0;
      for (const [place, keyBlock] of byScore.entries()) {
        if (before + (place > 0 ? own : 0) >= threshold) {
          break;
        }
        selected.add(keyBlock);
        before += scoreOf(keyBlock);
      }
      for (let ownBlock = candidates; ownBlock < visibleBlocks(geometry, causal, queryBlock); ++ownBlock) {
        selected.add(ownBlock);
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
