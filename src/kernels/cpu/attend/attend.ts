import type {CPUCall, CPUPlan} from '../cpu_call.js';
import {keyRow} from '../rows.js';
import {visibleScores} from './visible_scores.js';

/**
 * Stage 4, attend: float32 `[batch, heads, queryLength, valueDim]`. Softmax attention of each query row over the keys of
 * the blocks in its list, in float64; a row that sees nothing gives zeros.
 *
 * Without lists and key order every key counts: exact attention.
 */
export function attend(call: CPUCall, plan?: CPUPlan): Float32Array {
  const {value, geometry} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  const output = new Float32Array(batch * heads * queryLength * valueDim);
  const scoresOf = visibleScores(call, plan);
  const sums = new Float64Array(valueDim);
  for (let head = 0; head < batch * heads; ++head) {
    for (let row = 0; row < queryLength; ++row) {
      const queryRow = head * queryLength + row;
      const {count, positions, scores} = scoresOf(head, row);
      const max = scores.subarray(0, count).reduce((a, b) => Math.max(a, b), -Infinity);
      let sum = 0;
      sums.fill(0);
      for (let i = 0; i < count; ++i) {
        const weight = Math.exp(scores[i] - max);
        sum += weight;
        const valueStart = keyRow(geometry, head, positions[i]) * valueDim;
        for (let d = 0; d < valueDim; ++d) {
          sums[d] += weight * value[valueStart + d];
        }
      }
      const outputStart = queryRow * valueDim;
      for (let d = 0; d < valueDim && sum !== 0; ++d) {
        output[outputStart + d] = sums[d] / sum;
      }
    }
  }
  return output;
}
