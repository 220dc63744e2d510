import {dot} from '../rows.js';
import type {CPUGradientCall, CPUPlan} from '../cpu_call.js';
import {visibleScores} from '../attend/visible_scores.js';

/** What the gradients need of each query row, float64 `[batch, heads, queryLength]`. */
export interface GradientStatistics {
  /** Logarithm of the sum of exp(score) over all that the row sees: a weight is exp(score − logSum). */
  logSums: Float64Array;
  /** Product of the row's output and its gradient: the mean, by weight, of the gradients of its weights. */
  deltas: Float64Array;
}

/**
 * Stage 1 of the gradients, gradient statistics (FlashAttention-2, arXiv 2307.08691, algorithm 2).
 */
export function gradientStatistics(call: CPUGradientCall, plan?: CPUPlan): GradientStatistics {
  const {output, dy, geometry} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  const scoresOf = visibleScores(call, plan);
  const logSums = new Float64Array(batch * heads * queryLength);
  const deltas = new Float64Array(batch * heads * queryLength);
  for (let queryRow = 0; queryRow < batch * heads * queryLength; ++queryRow) {
    const {count, scores} = scoresOf(Math.floor(queryRow / queryLength), queryRow % queryLength);
    const visible = scores.subarray(0, count);
    const max = visible.reduce((a, b) => Math.max(a, b), -Infinity);
    logSums[queryRow] = max + Math.log(visible.reduce((sum, score) => sum + Math.exp(score - max), 0));
    deltas[queryRow] = dot(output, queryRow * valueDim, dy, queryRow * valueDim, valueDim);
  }
  return {logSums, deltas};
}
