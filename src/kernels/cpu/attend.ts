import type {BlockGeometry} from '../block_geometry.js';
import {dot, keyRow} from './permute.js';
import type {BlockPlan} from './visible_keys.js';
import {visibleKeys} from './visible_keys.js';

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
  plan?: BlockPlan,
): Float32Array {
  const {batch, heads, length, headDim} = geometry;
  const output = new Float32Array(query.length);
  const positions = new Int32Array(length);
  const weights = new Float64Array(length);
  const sums = new Float64Array(headDim);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < length; ++row) {
      const queryStart = (head * length + row) * headDim;
      const visible = visibleKeys(positions, geometry, head, row, causal, plan);
      let max = -Infinity;
      for (let i = 0; i < visible; ++i) {
        const keyStart = keyRow(geometry, head, positions[i]) * headDim;
        weights[i] = scale * dot(query, queryStart, key, keyStart, headDim);
        max = Math.max(max, weights[i]);
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
