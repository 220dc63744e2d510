import {varianceCap} from '../block_estimate.js';
import {skippedBlocks} from './attend_remainder.js';
import type {GradientStatistics} from './gradient_statistics.js';
import {dot, keyRow} from './permute.js';
import {summarizeBlocks, summarizeValues} from './summarize_blocks.js';
import type {BlockPlan, Scoring} from './visible_scores.js';

/**
 * Last part of the gradients, where blocks that are skipped count by their summaries (`block_estimate.ts`): adds what these
 * move to the gradients by query, key and value.
 *
 * To a query row, a skipped block is a key with a value, whose score has a part of the mean key and one of the variance, the
 * latter constant where it is capped. What the block's mean and variance would have to change by is added up over the rows
 * that skip it, and goes to the n keys of the block: d key = (d mean + 2 · d variance · (key − mean)) / n, d value = d mean / n.
 */
export function addRemainderGradients(
  gradients: {query: Float32Array; key: Float32Array; value: Float32Array},
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  dy: Float32Array,
  {logSums, deltas}: GradientStatistics,
  {geometry, scale, causal, keyLengths}: Scoring,
  {keyIndices, blockLists}: BlockPlan,
): void {
  const {batch, heads, queryLength, keyLength, headDim, valueDim, blockSize, keyBlocks} = geometry;
  const {means, variances, counts} = summarizeBlocks(key, keyIndices, geometry, keyLengths);
  const valueMeans = summarizeValues(value, keyIndices, geometry, keyLengths);
  const meanSums = new Float64Array(means.length);
  const varianceSums = new Float64Array(variances.length);
  const valueSums = new Float64Array(valueMeans.length);
  for (let row = 0; row < batch * heads * queryLength; ++row) {
    const q = query.subarray(row * headDim, (row + 1) * headDim);
    for (const block of skippedBlocks(geometry, causal, blockLists, counts, row)) {
      const [at, valueAt] = [block * headDim, block * valueDim];
      const correction = (scale ** 2 / 2) * q.reduce((sum, x, d) => sum + x * x * variances[at + d], 0);
      const score =
        scale * q.reduce((sum, x, d) => sum + x * means[at + d], 0) +
        Math.min(correction, varianceCap) +
        Math.log(counts[block]);
      const weight = Math.exp(score - logSums[row]);
      const product = dot(dy, row * valueDim, valueMeans, valueAt, valueDim);
      const scoreGradient = weight * (product - deltas[row]);
      const correctionGradient = correction < varianceCap ? scoreGradient : 0;
      for (let d = 0; d < headDim; ++d) {
        gradients.query[row * headDim + d] +=
          scale * scoreGradient * means[at + d] + scale ** 2 * correctionGradient * q[d] * variances[at + d];
        meanSums[at + d] += scale * scoreGradient * q[d];
        varianceSums[at + d] += (scale ** 2 / 2) * correctionGradient * q[d] ** 2;
      }
      for (let d = 0; d < valueDim; ++d) {
        valueSums[valueAt + d] += weight * dy[row * valueDim + d];
      }
    }
  }
  for (let block = 0; block < counts.length; ++block) {
    const head = Math.floor(block / keyBlocks);
    const first = head * keyLength + (block % keyBlocks) * blockSize;
    for (let i = first; i < first + counts[block]; ++i) {
      const row = keyRow(geometry, head, keyIndices[i]);
      for (let d = 0; d < headDim; ++d) {
        const at = block * headDim + d;
        const fromMean = 2 * varianceSums[at] * (key[row * headDim + d] - means[at]);
        gradients.key[row * headDim + d] += (meanSums[at] + fromMean) / counts[block];
      }
      for (let d = 0; d < valueDim; ++d) {
        gradients.value[row * valueDim + d] += valueSums[block * valueDim + d] / counts[block];
      }
    }
  }
}
