import type {CPUCall, CPUPlan} from '../cpu_call.js';
import {cappedScore, maskRow, slopeBias, visibleRange} from '../rows.js';
import {selectedBlocks} from '../select/block_lists.js';

/**
 * A function from a head of `[batch * heads]` and a row to the keys that the row sees: their original indices, and
 * their scores, in float64 until a mask is added; both are overwritten by the next call. With a plan these are the keys of the blocks in the
 * row's list, without one all keys: exact attention. With a causal mask a row sees the keys whose original index is not
 * above its own position. A row whose scores are all −Infinity sees nothing. Forms of a score in their order: soft cap, slopes, mask;
 * `derivatives` are those by the scaled product.
 */
export function visibleScores(
  call: CPUCall,
  plan?: CPUPlan,
): (head: number, row: number) => {positions: Int32Array; scores: Float64Array; derivatives: Float64Array} {
  const {geometry, softCap = Infinity, mask} = call;
  const {keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const positions = new Int32Array(keyLength);
  const scores = new Float64Array(keyLength);
  const derivatives = new Float64Array(keyLength);
  return (head, row) => {
    const [first, end] = visibleRange(call, head, row);
    const biasAt = mask ? maskRow(mask, geometry, head, row) : () => 0;
    let count = 0;
    const see = (position: number) => {
      const bias = biasAt(position);
      if (position >= first && position < end && bias !== -Infinity) {
        const capped = cappedScore(call, head, row, position);
        positions[count] = position;
        derivatives[count] = 1 - (capped / softCap) ** 2;
        const score = capped + slopeBias(call, head, row, position);
        // In float32, as tfjs adds: beside -1e9 scores are all but lost, and a row of such scores is uniform.
        scores[count++] = bias === 0 ? score : Math.fround(Math.fround(score) + bias);
      }
    };
    if (plan) {
      const order = plan.keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
      const listRow = head * queryBlocks + Math.floor(row / blockSize);
      for (const block of selectedBlocks(plan.blockLists, listRow, keyBlocks)) {
        order.subarray(block * keyBlockSize, (block + 1) * keyBlockSize).forEach(see);
      }
    } else {
      for (let position = first; position < end; ++position) {
        see(position);
      }
    }
    if (scores.subarray(0, count).every((score) => score === -Infinity)) {
      count = 0;
    }
    const [seen, ofSeen, bySeen] = [positions, scores, derivatives].map((x) => x.subarray(0, count));
    return {positions: seen as Int32Array, scores: ofSeen as Float64Array, derivatives: bySeen as Float64Array};
  };
}
