import {visibleScores} from '../attend/visible_scores.js';
import type {CPUGradientCall, CPUPlan} from '../cpu_call.js';
import {dot, keyRow, sinkOf, softmax} from '../rows.js';

/**
 * Gradients of the attend stage by query, key and value; `dy` is the gradient by `output` (FlashAttention-2,
 * arXiv 2307.08691, algorithm 2). A score moves the output by its weight times what its value differs from the mean:
 * d score = weight · (dy · value − delta), with delta = output · dy; under a soft cap times the slope of the cap. A score moves the logarithm of
 * the sum by its weight: delta is less what comes from there. So d query = scale · Σ d score · key, and over all
 * rows that see a key, of all heads that share it, d key = scale · Σ d score · query and d value = Σ weight · dy.
 *
 * GPUs cannot add to the sums of query, key and value at once, and have a stage for the statistics of rows, one for the
 * query, one for keys and values.
 */
export function attendGradients(call: CPUGradientCall, plan?: CPUPlan): Float32Array[] {
  const {query, key, value, output, dy, dLogSumExp, geometry, scale} = call;
  const {batch, heads, queryLength, headDim, valueDim} = geometry;
  const [querySums, keySums, valueSums] = [query, key, value].map(({length}) => new Float64Array(length));
  const scoresOf = visibleScores(call, plan);
  for (let queryRow = 0; queryRow < batch * heads * queryLength; ++queryRow) {
    const head = Math.floor(queryRow / queryLength);
    const {positions, scores, derivatives} = scoresOf(head, queryRow % queryLength);
    const queryStart = queryRow * headDim;
    const outputStart = queryRow * valueDim;
    const delta = dot(output, outputStart, dy, outputStart, valueDim) - (dLogSumExp?.[queryRow] ?? 0);
    for (const [i, weight] of softmax(scores, sinkOf(call, head)).entries()) {
      // Not even what is not finite has a gradient where its weight is 0, as that of a score of −Infinity.
      if (weight === 0) continue;
      const keyAt = keyRow(geometry, head, positions[i]);
      const [keyStart, valueStart] = [keyAt * headDim, keyAt * valueDim];
      const weightGradient = dot(dy, outputStart, value, valueStart, valueDim) - delta;
      const scoreGradient = weight * weightGradient * derivatives[i];
      for (let d = 0; d < headDim; ++d) {
        querySums[queryStart + d] += scale * scoreGradient * key[keyStart + d];
        keySums[keyStart + d] += scale * scoreGradient * query[queryStart + d];
      }
      for (let d = 0; d < valueDim; ++d) {
        valueSums[valueStart + d] += weight * dy[outputStart + d];
      }
    }
  }
  return [querySums, keySums, valueSums].map((sums) => Float32Array.from(sums));
}
