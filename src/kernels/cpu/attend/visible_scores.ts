import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {AttentionMask, CPUCall, CPUPlan} from '../cpu_call.js';
import {lengthOf, scoreOf} from '../rows.js';
import {selectedBlocks} from '../select/block_lists.js';

/**
 * A function from a head of `[batch * heads]` and a row to the keys that the row sees: their original indices, and
 * their scores, in float64; both are overwritten by the next call. With a plan these are the keys of the blocks in the
 * row's list, without one all keys: exact attention. With a causal mask a row sees the keys whose original index is not
 * above its own position. A row whose scores are all −Infinity sees nothing.
 */
export function visibleScores(
  call: CPUCall,
  plan?: CPUPlan,
): (head: number, row: number) => {positions: Int32Array; scores: Float64Array} {
  const {geometry, causal, mask} = call;
  const {keyLength, queryOffset, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const positions = new Int32Array(keyLength);
  const scores = new Float64Array(keyLength);
  return (head, row) => {
    const length = lengthOf(call, head);
    const end = causal ? Math.min(length, queryOffset + row + 1) : length;
    const biasAt = mask ? maskRow(mask, geometry, head, row) : () => 0;
    let count = 0;
    const see = (position: number) => {
      const bias = biasAt(position);
      if (position < end && bias !== -Infinity) {
        positions[count] = position;
        scores[count++] = scoreOf(call, head, row, position) + bias;
      }
    };
    if (plan) {
      const order = plan.keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
      const listRow = head * queryBlocks + Math.floor(row / blockSize);
      for (const block of selectedBlocks(plan.blockLists, listRow, keyBlocks)) {
        order.subarray(block * keyBlockSize, (block + 1) * keyBlockSize).forEach(see);
      }
    } else {
      for (let position = 0; position < end; ++position) {
        see(position);
      }
    }
    if (scores.subarray(0, count).every((score) => score === -Infinity)) {
      count = 0;
    }
    return {positions: positions.subarray(0, count), scores: scores.subarray(0, count)};
  };
}

/** What the mask adds to the score of each key of a query row: −Infinity where it hides the key. */
function maskRow(
  {values, shape, dtype}: AttentionMask,
  {heads}: BlockGeometry,
  head: number,
  row: number,
): (position: number) => number {
  const [batches, maskHeads, rows, keys] = shape;
  const along = (size: number, index: number) => (size === 1 ? 0 : index);
  const entry = along(batches, Math.floor(head / heads)) * maskHeads + along(maskHeads, head % heads);
  const start = (entry * rows + along(rows, row)) * keys;
  return (position) => {
    const x = values[start + along(keys, position)];
    return dtype === 'bool' ? (x ? 0 : -Infinity) : x;
  };
}
