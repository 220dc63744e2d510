import {matMul, tensor2d, tidy} from '@tensorflow/tfjs-core';
import type {CPUCall, CPUPlan} from '../../cpu/cpu_call.js';
import {sinkOf} from '../../cpu/rows.js';
import {rowOf, tileKeys} from './tile_values.js';
import {weightsOf} from './tile_weights.js';
import {tilesOf} from './tiles.js';

/** Stage 4, attend, as on the CPU; the arithmetic of every tile in ops of tfjs. */
export function attend(call: CPUCall, plan?: CPUPlan, logSums?: Float32Array): Float32Array {
  const {geometry, value} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  const output = new Float32Array(batch * heads * queryLength * valueDim);
  logSums?.forEach((_, i) => (logSums[i] = sinkOf(call, Math.floor(i / queryLength))));
  for (const tile of tilesOf(call, plan)) {
    const {positions} = tile;
    if (positions.length === 0) continue;
    tidy(() => {
      const {weights, shares, logSums: ofTile} = weightsOf(call, tile);
      const values = tensor2d(tileKeys(call, tile, value, valueDim), [positions.length, valueDim]);
      const attended = matMul(weights, values).dataSync();
      shares.forEach((share, i) => {
        const queryRow = rowOf(call, tile, i);
        for (let d = 0; d < valueDim; ++d) {
          output[queryRow * valueDim + d] = share * attended[i * valueDim + d];
        }
        if (logSums) logSums[queryRow] = ofTile[i];
      });
    });
  }
  return output;
}
