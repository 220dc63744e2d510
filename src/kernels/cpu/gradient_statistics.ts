import type {BlockGeometry} from '../block_geometry.js';
import {dot, keyRow} from './permute.js';
import type {BlockPlan} from './visible_keys.js';
import {visibleKeys} from './visible_keys.js';

/** What the gradients need of each query row, float64 `[batch, heads, length]`. */
export interface GradientStatistics {
  /** Logarithm of the sum of exp(score) over the keys that the row sees: a weight is exp(score − logSum). */
  logSums: Float64Array;
  /** Product of the row's output and its gradient: the mean, by weight, of the gradients of its weights. */
  deltas: Float64Array;
}

/** Stage 1 of the gradients, gradient statistics (FlashAttention-2, arXiv 2307.08691, algorithm 2). */
export function gradientStatistics(
  query: Float32Array,
  key: Float32Array,
  output: Float32Array,
  dy: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
): GradientStatistics {
  const {batch, heads, length, headDim} = geometry;
  const logSums = new Float64Array(batch * heads * length);
  const deltas = new Float64Array(batch * heads * length);
  const positions = new Int32Array(length);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < length; ++row) {
      const queryRow = head * length + row;
      const visible = visibleKeys(positions, geometry, head, row, causal, plan);
      let logSum = -Infinity;
      for (let i = 0; i < visible; ++i) {
        const keyStart = keyRow(geometry, head, positions[i]) * headDim;
        const score = scale * dot(query, queryRow * headDim, key, keyStart, headDim);
        const [less, more] = [Math.min(logSum, score), Math.max(logSum, score)];
        logSum = more + Math.log1p(Math.exp(less - more));
      }
      logSums[queryRow] = logSum;
      deltas[queryRow] = dot(output, queryRow * headDim, dy, queryRow * headDim, headDim);
    }
  }
  return {logSums, deltas};
}
