import type {BlockGeometry} from '../block_geometry.js';
import type {GradientStatistics} from './gradient_statistics.js';
import {dot, keyRow} from './permute.js';
import type {BlockPlan} from './visible_keys.js';
import {visibleKeys} from './visible_keys.js';

/**
 * Stage 3 of the gradients, gradient key: float32, shaped as key and as value. Sums over all query rows that see a
 * key, of all heads that share it: d value = Σ weight · dy, d key = scale · Σ d score · query.
 */
export function gradientKey(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  dy: Float32Array,
  {logSums, deltas}: GradientStatistics,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
): {key: Float32Array; value: Float32Array} {
  const {batch, heads, length, headDim} = geometry;
  const keySums = new Float64Array(key.length);
  const valueSums = new Float64Array(value.length);
  const positions = new Int32Array(length);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < length; ++row) {
      const queryRow = head * length + row;
      const queryStart = queryRow * headDim;
      const visible = visibleKeys(positions, geometry, head, row, causal, plan);
      for (let i = 0; i < visible; ++i) {
        const keyStart = keyRow(geometry, head, positions[i]) * headDim;
        const weight = Math.exp(scale * dot(query, queryStart, key, keyStart, headDim) - logSums[queryRow]);
        const scoreGradient = weight * (dot(dy, queryStart, value, keyStart, headDim) - deltas[queryRow]);
        for (let d = 0; d < headDim; ++d) {
          keySums[keyStart + d] += scale * scoreGradient * query[queryStart + d];
          valueSums[keyStart + d] += weight * dy[queryStart + d];
        }
      }
    }
  }
  return {key: Float32Array.from(keySums), value: Float32Array.from(valueSums)};
}
