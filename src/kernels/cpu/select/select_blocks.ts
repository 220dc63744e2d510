import type {AttentionCall, PlanRule} from '../../../attention/attention_call.js';
import {firstVisibleBlock, scoredBlocks, seesFirstKey, visibleBlocks} from '../../../attention/block_geometry.js';
import {leastScore} from '../../../attention/sampled_estimate.js';

/**
 * Stage 3, select blocks (paper section 3.3): block lists, int32 `[batch, heads, queryBlocks, keyBlocks + 1]` (the form is
 * described in `block_geometry.ts`).
 *
 * By the sampled estimate a query block keeps the key blocks whose score reaches `leastScore`; by the pooled one (the
 * paper) the shortest prefix of its key blocks, by descending score, whose scores add up to the threshold; and always
 * the blocks of its own segment (under a causal mask; of every segment that its rows stand in) and, where key 0 is in the window of the
 * first row, the block that holds original key 0, the attention sink. Nothing before the window competes.
 */
export function selectBlocks(
  {geometry, causal}: Pick<AttentionCall<unknown>, 'geometry' | 'causal'>,
  {threshold, estimate}: Pick<PlanRule, 'threshold' | 'estimate'>,
  scores: ArrayLike<number>,
  keyIndices: Int32Array,
): Int32Array {
  const {batch, heads, keyLength, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const lists = new Int32Array(batch * heads * queryBlocks * (keyBlocks + 1));
  for (let head = 0; head < batch * heads; ++head) {
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    const sinkBlock = Math.floor(order.indexOf(0) / keyBlockSize);
    for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const row = head * queryBlocks + queryBlock;
      const competing = scoredBlocks(geometry, causal, queryBlock);
      const first = firstVisibleBlock(geometry, queryBlock);
      const ofRow = Array.from({length: Math.max(0, competing - first)}, (_, i) => scores[row * keyBlocks + first + i]);
      const chosen =
        estimate === 'sampled'
          ? reaching(ofRow, leastScore(geometry, causal, threshold, queryBlock))
          : shortestPrefix(ofRow, threshold);
      const selected = new Set(chosen.map((i) => first + i));
      if (seesFirstKey(geometry, queryBlock)) {
        selected.add(sinkBlock);
      }
      for (
        let ownBlock = Math.max(first, competing);
        ownBlock < visibleBlocks(geometry, causal, queryBlock);
        ++ownBlock
      ) {
        selected.add(ownBlock);
      }
      const ascending = [...selected].sort((a, b) => a - b);
      lists.set([selected.size, ...ascending], row * (keyBlocks + 1));
    }
  }
  return lists;
}

/** Written so that a NaN keeps the block. */
function reaching(scores: number[], least: number): number[] {
  return [...scores.keys()].filter((i) => !(scores[i] < least));
}

/** A NaN keeps the blocks here, too: where one score is a NaN, all are. */
function shortestPrefix(scores: number[], threshold: number): number[] {
  const byScore = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
  let sum = 0;
  let kept = 0;
  while (kept < byScore.length && !(sum >= threshold)) {
    sum += scores[byScore[kept++]];
  }
  return byScore.slice(0, kept);
}
