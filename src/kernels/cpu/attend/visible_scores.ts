import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {AttentionMask, CPUCall, CPUPlan} from '../cpu_call.js';
import {dot, keyRow, lengthOf} from '../rows.js';

/** The keys that a query row sees, the first `count` entries: their original indices, and their scores, in float64. */
export interface VisibleScores {
  count: number;
  positions: Int32Array;
  scores: Float64Array;
}

/**
 * A function from a head of `[batch * heads]` and a row to its visible scores, which are overwritten by the next call. With
 * a plan these are of the keys of the blocks in the row's list, without one of every key: exact attention. With a causal mask a row sees the keys whose original index
 * is not above its own position.
 */
export function visibleScores(call: CPUCall, plan?: CPUPlan): (head: number, row: number) => VisibleScores {
  const {query, key, geometry, scale, causal, mask} = call;
  const {queryLength, keyLength, queryOffset, headDim, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const visible = {count: 0, positions: new Int32Array(keyLength), scores: new Float64Array(keyLength)};
  return (head, row) => {
    const queryStart = (head * queryLength + row) * headDim;
    const length = lengthOf(call, head);
    const end = causal ? Math.min(length, queryOffset + row + 1) : length;
    const biasAt = mask && maskRow(mask, geometry, head, row);
    visible.count = 0;
    const see = (position: number) => {
      const bias = biasAt ? biasAt(position) : 0;
      if (position < end && bias !== -Infinity) {
        const keyStart = keyRow(geometry, head, position) * headDim;
        visible.positions[visible.count] = position;
        visible.scores[visible.count++] = scale * dot(query, queryStart, key, keyStart, headDim) + bias;
      }
    };
    if (plan) {
      const list = (head * queryBlocks + Math.floor(row / blockSize)) * (keyBlocks + 1);
      for (let entry = 1; entry <= plan.blockLists[list]; ++entry) {
        const start = plan.blockLists[list + entry] * keyBlockSize;
        for (let i = start; i < Math.min(start + keyBlockSize, keyLength); ++i) {
          see(plan.keyIndices[head * keyLength + i]);
        }
      }
    } else {
      for (let position = 0; position < end; ++position) {
        see(position);
      }
    }
    return visible;
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
