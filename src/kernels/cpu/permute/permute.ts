import type {PlanRule} from '../../../attention/attention_call.js';
import {proxyRange} from '../../../attention/block_geometry.js';
import {orderRowRange} from '../../../attention/sampled_estimate.js';
import type {CPUCall} from '../cpu_call.js';
import {lengthOf, productOf, scoreOf, softmax} from '../rows.js';

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by
 * index. Keys that are padding score 0, so that they stand last.
 *
 * By the sampled estimate a key's score is the mean attention that the first rows behind its segment pay to it, by a
 * softmax over the keys of the segment (`sampled_estimate.ts`); 0 in a segment that has no row behind it. By the pooled
 * one (paper section 3.2) it is that of the last query rows, the proxy rows, by a softmax over the keys of all
 * segments, without a causal mask, a soft cap and slopes; then a batch entry without proxy rows or without keys keeps its order, and `causal`
 * counts with key lengths alone: it says which rows are padding.
 *
 * @returns `keyScores`, float64 `[batch, heads, permutedLength]`, and `keyIndices`, int32 `[batch, heads, keyLength]`.
 */
export function permute(
  call: CPUCall,
  {permute: sort, estimate}: Pick<PlanRule, 'permute' | 'estimate'>,
): {keyScores: Float64Array; keyIndices: Int32Array} {
  const {geometry, causal} = call;
  const {batch, heads, keyLength, segmentSize, permutedLength} = geometry;
  const keyScores = new Float64Array(batch * heads * permutedLength);
  const keyIndices = new Int32Array(batch * heads * keyLength);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(call, head);
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    const scored = scores.subarray(0, length);
    if (estimate === 'sampled') {
      for (let start = 0; start < scored.length; start += segmentSize) {
        const rows = orderRowRange(geometry, causal, start / segmentSize, length);
        addMeanAttention(scored.subarray(start, start + segmentSize), call, head, start, rows);
      }
    } else {
      addMeanAttention(scored, call, head, 0, proxyRange(geometry, causal, length), productOf);
    }
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    order.forEach((_, i) => (order[i] = i));
    for (let start = 0; sort && start < permutedLength; start += segmentSize) {
      order.subarray(start, start + segmentSize).sort((a, b) => scores[b] - scores[a] || a - b);
    }
  }
  return {keyScores, keyIndices};
}

/** Adds to the scores of the keys from `start` on what the rows `[first, end)` pay to each in the mean. */
function addMeanAttention(
  scores: Float64Array,
  call: CPUCall,
  head: number,
  start: number,
  [first, end]: [first: number, end: number],
  score = scoreOf,
): void {
  for (let row = first; row < end; ++row) {
    const weights = softmax(scores.map((_, i) => score(call, head, row, start + i)));
    weights.forEach((weight, i) => (scores[i] += weight / (end - first)));
  }
}
