import {orderRowRange} from '../../../attention/sampled_estimate.js';
import type {CPUCall} from '../cpu_call.js';
import {dot, keyRow, lengthOf} from '../rows.js';

/**
 * Part of stage 1, permute, by the sampled estimate: float64 `[batch, heads, permutedLength]`, the mean attention that the first
 * rows behind a segment pay to its keys, by a softmax over the keys of the segment (`sampled_estimate.ts`). Padding scores 0, and
 * so does every key of a segment that has no row behind it.
 */
export function segmentKeyScores(call: CPUCall): Float64Array {
  const {query, key, geometry, scale, causal} = call;
  const {batch, heads, queryLength, headDim, segmentSize, permutedLength} = geometry;
  const scores = new Float64Array(batch * heads * permutedLength);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(call, head);
    for (let start = 0; start < Math.min(permutedLength, length); start += segmentSize) {
      const keys = Math.min(segmentSize, length - start);
      const ofSegment = scores.subarray(head * permutedLength + start, head * permutedLength + start + keys);
      const [first, end] = orderRowRange(geometry, causal, start / segmentSize, length);
      for (let row = first; row < end; ++row) {
        const queryStart = (head * queryLength + row) * headDim;
        const logits = Float64Array.from(
          ofSegment,
          (_, i) => scale * dot(query, queryStart, key, keyRow(geometry, head, start + i) * headDim, headDim),
        );
        const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
        const weights = logits.map((x) => Math.exp(x - max));
        const sum = weights.reduce((a, b) => a + b, 0);
        weights.forEach((weight, i) => (ofSegment[i] += weight / (sum * (end - first))));
      }
    }
  }
  return scores;
}
