import type {CPUCall, CPUGradientCall} from '../../cpu/cpu_call.js';
import type {Tile} from './tile_values.js';
import {tileKeys, tileRows} from './tile_values.js';

/** Of float32's 3.4e38: products of what is below it and sums of them stay finite, and a hidden key's score −Infinity. */
const most = 1e30;

/**
 * A function that says of a tile whether none of its values and products is infinite or NaN. One that is would reach, by a weight of 0, rows that
 * must not see it (docs/options.md, NaN and infinities).
 */
export function tameness(call: CPUCall & Partial<CPUGradientCall>): (tile: Tile) => boolean {
  const {query, key, value, output, dy, dLogSumExp, mask, alibiSlopes, sinks, scale, geometry} = call;
  const {headDim, valueDim, keyLength, queryLength} = geometry;
  // −Infinity hides, and as a sink is none.
  const isAdded = (x: number) => x < most;
  const isForm =
    norm(alibiSlopes ?? []) * (keyLength + queryLength) < most &&
    (mask?.values ?? []).every(isAdded) &&
    (sinks ?? []).every(isAdded);
  return (tile) => {
    if (!isForm) return false;
    const ofRows = (x: Float32Array | undefined, dim: number) => (x ? norm(tileRows(call, tile, x, dim)) : 0);
    const [queries, keys] = [ofRows(query, headDim), norm(tileKeys(call, tile, key, headDim))];
    const values = norm(tileKeys(call, tile, value, valueDim));
    const gradients = ofRows(dy, valueDim) * (1 + values + ofRows(output, valueDim)) + ofRows(dLogSumExp, 1);
    const byScores = (1 + gradients) * (1 + Math.abs(scale)) * (1 + queries) * (1 + keys);
    return byScores < most && values < most;
  };
}

/** Bounds every value and, by Cauchy and Schwarz, every product of rows. */
function norm(x: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; ++i) {
    sum += x[i] * x[i];
  }
  return Math.sqrt(sum);
}
