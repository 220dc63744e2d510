import type {CPUGradientCall, CPUPlan} from '../cpu_call.js';
import type {GradientStatistics} from './gradient_statistics.js';
import {dot, keyRow} from '../rows.js';
import {visibleScores} from '../attend/visible_scores.js';

/**
 * Stage 2 of the gradients, gradient query: float32, shaped as query. A score moves the output by its weight times what
 * its value differs from the mean: d score = weight · (dy · value − delta), d query = scale · Σ d score · key.
 */
export function gradientQuery(
  call: CPUGradientCall,
  {logSums, deltas}: GradientStatistics,
  plan?: CPUPlan,
): Float32Array {
  const {query, key, value, dy, geometry, scale} = call;
  const {batch, heads, queryLength, headDim, valueDim} = geometry;
  const scoresOf = visibleScores(call, plan);
  const gradient = new Float32Array(query.length);
  const sums = new Float64Array(headDim);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < queryLength; ++row) {
      const queryRow = head * queryLength + row;
      const {count, positions, scores} = scoresOf(head, row);
      sums.fill(0);
      for (let i = 0; i < count; ++i) {
        const keyAt = keyRow(geometry, head, positions[i]);
        const weight = Math.exp(scores[i] - logSums[queryRow]);
        const product = dot(dy, queryRow * valueDim, value, keyAt * valueDim, valueDim);
        const scoreGradient = weight * (product - deltas[queryRow]);
        for (let d = 0; d < headDim; ++d) {
          sums[d] += scoreGradient * key[keyAt * headDim + d];
        }
      }
      for (let d = 0; d < headDim; ++d) {
        gradient[queryRow * headDim + d] = scale * sums[d];
      }
    }
  }
  return gradient;
}
