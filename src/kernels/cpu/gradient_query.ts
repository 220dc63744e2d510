import type {BlockGeometry} from '../block_geometry.js';
import type {GradientStatistics} from './gradient_statistics.js';
import {dot, keyRow} from './permute.js';
import type {BlockPlan} from './visible_keys.js';
import {visibleKeys} from './visible_keys.js';

/**
 * Stage 2 of the gradients, gradient query: float32, shaped as query. A score moves the output by its weight times
 * what its value differs from the mean: d score = weight · (dy · value − delta), d query = scale · Σ d score · key.
 */
export function gradientQuery(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  dy: Float32Array,
  {logSums, deltas}: GradientStatistics,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
): Float32Array {
  const {batch, heads, length, headDim} = geometry;
  const gradient = new Float32Array(query.length);
  const positions = new Int32Array(length);
  const sums = new Float64Array(headDim);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < length; ++row) {
      const queryRow = head * length + row;
      const queryStart = queryRow * headDim;
      const visible = visibleKeys(positions, geometry, head, row, causal, plan);
      sums.fill(0);
      for (let i = 0; i < visible; ++i) {
        const keyStart = keyRow(geometry, head, positions[i]) * headDim;
        const weight = Math.exp(scale * dot(query, queryStart, key, keyStart, headDim) - logSums[queryRow]);
        const scoreGradient = weight * (dot(dy, queryStart, value, keyStart, headDim) - deltas[queryRow]);
        for (let d = 0; d < headDim; ++d) {
          sums[d] += scoreGradient * key[keyStart + d];
        }
      }
      for (let d = 0; d < headDim; ++d) {
        gradient[queryStart + d] = scale * sums[d];
      }
    }
  }
  return gradient;
}
