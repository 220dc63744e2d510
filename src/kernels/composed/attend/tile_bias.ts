import type {CPUCall} from '../../cpu/cpu_call.js';
import {maskRow, slopeBias, visibleRange} from '../../cpu/rows.js';
import type {Tile} from './tile_values.js';

/** What is added to the products of a tile. */
export interface TileBias {
  /** `[heads · rows, keys]`: −Infinity where a key is hidden. None where nothing is added. */
  values?: Float32Array;
  /** `[heads · rows]`: 1 in rows that see no key, in which nothing is hidden, so that their softmax is finite. */
  isBlind: Uint8Array;
}

export function biasOf(call: CPUCall, {head, heads, row, rows, positions}: Tile): TileBias {
  const {geometry, mask, alibiSlopes} = call;
  const values = new Float32Array(heads * rows * positions.length);
  const isBlind = new Uint8Array(heads * rows);
  let isSome = false;
  for (let i = 0; i < heads * rows; ++i) {
    const [ofHead, ofRow] = [head + Math.floor(i / rows), row + (i % rows)];
    const [first, end] = visibleRange(call, ofHead, ofRow);
    const added = mask && maskRow(mask, geometry, ofHead, ofRow);
    const bias = values.subarray(i * positions.length, (i + 1) * positions.length);
    let seen = 0;
    for (let j = 0; j < bias.length; ++j) {
      const position = positions[j];
      const isHidden = position < first || position >= end;
      bias[j] = isHidden ? -Infinity : (added?.(position) ?? 0);
      if (bias[j] !== -Infinity) ++seen;
      if (alibiSlopes) bias[j] += slopeBias(call, ofHead, ofRow, position);
    }
    if (seen === 0) {
      isBlind[i] = 1;
      bias.fill(0);
    }
    isSome ||= seen < bias.length;
  }
  return {isBlind, ...((isSome || mask || alibiSlopes) && {values})};
}
