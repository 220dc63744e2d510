import type {BlockGeometry} from '../block_geometry.js';
import {dot, keyRow} from './permute.js';

/**
 * Stage 4, attend: float32 `[batch, heads, length, headDim]`. Softmax attention of each query row over the keys of the
 * blocks in its list, in float64. With a causal mask a row sees the keys whose original index is not above its own; a
 * row that sees nothing gives zeros.
 *
 * Without lists and key order every key counts: exact attention.
 */
export function attend(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: {keyIndices: Int32Array; blockLists: Int32Array},
): Float32Array {
  const {batch, heads, length, headDim, blockSize, blocks} = geometry;
  const output = new Float32Array(query.length);
  const positions = new Int32Array(length);
  const weights = new Float64Array(length);
  const sums = new Float64Array(headDim);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < length; ++row) {
      const queryStart = (head * length + row) * headDim;
      let visible = 0;
      let max = -Infinity;
      const see = (position: number) => {
        if (!causal || position <= row) {
          const keyStart = keyRow(geometry, head, position) * headDim;
          positions[visible] = position;
          weights[visible] = scale * dot(query, queryStart, key, keyStart, headDim);
          max = Math.max(max, weights[visible++]);
        }
      };
      if (plan) {
        const list = (head * blocks + Math.floor(row / blockSize)) * (blocks + 1);
        for (let entry = 1; entry <= plan.blockLists[list]; ++entry) {
          const start = plan.blockLists[list + entry] * blockSize;
          for (let i = start; i < Math.min(start + blockSize, length); ++i) {
            see(plan.keyIndices[head * length + i]);
          }
        }
      } else {
        for (let position = 0; position < (causal ? row + 1 : length); ++position) {
          see(position);
        }
      }
      sums.fill(0);
      let sum = 0;
      for (let i = 0; i < visible; ++i) {
        const weight = Math.exp(weights[i] - max);
        sum += weight;
        const valueStart = keyRow(geometry, head, positions[i]) * headDim;
        for (let d = 0; d < headDim; ++d) {
          sums[d] += weight * value[valueStart + d];
        }
      }
      for (let d = 0; d < headDim && visible > 0; ++d) {
        output[queryStart + d] = sums[d] / sum;
      }
    }
  }
  return output;
}
