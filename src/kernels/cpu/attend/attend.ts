import type {CPUCall, CPUPlan} from '../cpu_call.js';
import {keyRow, sinkOf, softmax} from '../rows.js';
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
  const sums = new Float64Array(valueDim);
  const scoresOf = visibleScores(call, plan);
  for (let queryRow = 0; queryRow < batch * heads * queryLength; ++queryRow) {
    const head = Math.floor(queryRow / queryLength);
    const {positions, scores} = scoresOf(head, queryRow % queryLength);
    sums.fill(0);
    for (const [i, weight] of softmax(scores, sinkOf(call, head)).entries()) {
      const valueStart = keyRow(geometry, head, positions[i]) * valueDim;
      for (let d = 0; d < valueDim; ++d) {
        sums[d] += weight * value[valueStart + d];
      }
    }
    output.set(sums, queryRow * valueDim);
  }
  return output;
}
