import type {CPUGradientCall, CPUPlan} from '../cpu_call.js';
import type {GradientStatistics} from './gradient_statistics.js';
import {dot, keyRow} from '../rows.js';
import {visibleScores} from '../attend/visible_scores.js';

/**
 * Stage 3 of the gradients, gradient key: float32, shaped as key and as value. Sums over all query rows that see a key,
 * of all heads that share it: d value = Σ weight · dy, d key = scale · Σ d score · query.
 */
export function gradientKey(
  call: CPUGradientCall,
  {logSums, deltas}: GradientStatistics,
  plan?: CPUPlan,
): {key: Float32Array; value: Float32Array} {
  const {query, key, value, dy, geometry, scale} = call;
  const {batch, heads, queryLength, headDim, valueDim} = geometry;
  const scoresOf = visibleScores(call, plan);
  const keySums = new Float64Array(key.length);
  const valueSums = new Float64Array(value.length);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < queryLength; ++row) {
      const queryRow = head * queryLength + row;
      const {count, positions, scores} = scoresOf(head, row);
      for (let i = 0; i < count; ++i) {
        const keyAt = keyRow(geometry, head, positions[i]);
        const weight = Math.exp(scores[i] - logSums[queryRow]);
        const product = dot(dy, queryRow * valueDim, value, keyAt * valueDim, valueDim);
        const scoreGradient = weight * (product - deltas[queryRow]);
        for (let d = 0; d < headDim; ++d) {
          keySums[keyAt * headDim + d] += scale * scoreGradient * query[queryRow * headDim + d];
        }
        for (let d = 0; d < valueDim; ++d) {
          valueSums[keyAt * valueDim + d] += weight * dy[queryRow * valueDim + d];
        }
      }
    }
  }
  return {key: Float32Array.from(keySums), value: Float32Array.from(valueSums)};
}
