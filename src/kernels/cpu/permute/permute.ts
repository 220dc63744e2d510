import type {PlanRule} from '../../../attention/attention_call.js';
import {proxyRange} from '../../../attention/block_geometry.js';
import type {CPUCall} from '../cpu_call.js';
import {dot, keyRow, lengthOf} from '../rows.js';
import {segmentKeyScores} from './segment_key_scores.js';

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by
 * index. Keys that are padding score 0, so that they stand last. Scores are those of {@link segmentKeyScores}, or with the
 * pooled estimate (paper section 3.2) the mean attention of the last query rows, the proxy rows, without a causal mask; then
 * a batch entry without proxy rows or without keys keeps its order, and `causal` counts with key lengths alone: it says which
 * rows are padding.
 */
export function permute(
  call: CPUCall,
  {permute: sort, estimate}: Pick<PlanRule, 'permute' | 'estimate'>,
): {keyScores: Float64Array; keyIndices: Int32Array} {
  const {batch, heads, keyLength, segmentSize, permutedLength} = call.geometry;
  const keyScores = estimate === 'sampled' ? segmentKeyScores(call) : proxyKeyScores(call);
  const keyIndices = new Int32Array(batch * heads * keyLength);
  for (let head = 0; head < batch * heads; ++head) {
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    order.forEach((_, i) => (order[i] = i));
    if (sort) {
      for (let start = 0; start < permutedLength; start += segmentSize) {
        order.subarray(start, start + segmentSize).sort((a, b) => scores[b] - scores[a] || a - b);
      }
    }
  }
  return {keyScores, keyIndices};
}

function proxyKeyScores(call: CPUCall): Float64Array {
  const {batch, heads, permutedLength} = call.geometry;
  const keyScores = new Float64Array(batch * heads * permutedLength);
  for (let head = 0; head < batch * heads; ++head) {
    addProxyAttention(keyScores.subarray(head * permutedLength, (head + 1) * permutedLength), call, head);
  }
  return keyScores;
}

function addProxyAttention(scores: Float64Array, call: CPUCall, head: number): void {
  const {query, key, geometry, scale, causal} = call;
  const {queryLength, headDim, permutedLength} = geometry;
  const length = lengthOf(call, head);
  const scoredKeys = Math.min(permutedLength, length);
  const keyStart = keyRow(geometry, head, 0) * headDim;
  const weights = new Float64Array(permutedLength);
  const [firstRow, endRow] = proxyRange(geometry, causal, length);
  for (let row = firstRow; row < endRow; ++row) {
    const queryStart = (head * queryLength + row) * headDim;
    let max = -Infinity;
    for (let i = 0; i < scoredKeys; ++i) {
      weights[i] = scale * dot(query, queryStart, key, keyStart + i * headDim, headDim);
      max = Math.max(max, weights[i]);
    }
    let sum = 0;
    for (let i = 0; i < scoredKeys; ++i) {
      weights[i] = Math.exp(weights[i] - max);
      sum += weights[i];
    }
    for (let i = 0; i < scoredKeys; ++i) {
      scores[i] += weights[i] / (sum * (endRow - firstRow));
    }
  }
}
