import type {CPUCall} from '../../cpu/cpu_call.js';
import {keyRow} from '../../cpu/rows.js';

/** Rows of heads that read one key head, and the keys that any of the rows may see. */
export interface Tile {
  /** The first of `[batch · heads]`, and how many. */
  head: number;
  heads: number;
  /** The first row of each head, and how many. */
  row: number;
  rows: number;
  /** Original positions of the keys. */
  positions: Int32Array;
}

/** Where a row of a tile stands in `[batch · heads · queryLength]`. */
export const rowOf = ({geometry}: CPUCall, {head, row, rows}: Tile, i: number): number =>
  (head + Math.floor(i / rows)) * geometry.queryLength + row + (i % rows);

/** Rows of a tile, of `[batch, heads, queryLength, dim]`: `[heads · rows, dim]`. */
export function tileRows(
  {geometry}: CPUCall,
  {head, heads, row, rows}: Tile,
  x: Float32Array,
  dim: number,
): Float32Array {
  const picked = new Float32Array(heads * rows * dim);
  for (let i = 0; i < heads; ++i) {
    const start = ((head + i) * geometry.queryLength + row) * dim;
    picked.set(x.subarray(start, start + rows * dim), i * rows * dim);
  }
  return picked;
}

/** Keys or values of a tile, of `[batch, keyValueHeads, keyLength, dim]`: `[keys, dim]`. */
export function tileKeys({geometry}: CPUCall, {head, positions}: Tile, x: Float32Array, dim: number): Float32Array {
  const picked = new Float32Array(positions.length * dim);
  positions.forEach((position, i) => {
    const start = keyRow(geometry, head, position) * dim;
    picked.set(x.subarray(start, start + dim), i * dim);
  });
  return picked;
}

/** `[rows, columns]` → `[columns, rows]`. */
export function transposed(x: ArrayLike<number>, columns: number): Float32Array {
  const rows = x.length / columns;
  const turned = new Float32Array(x.length);
  for (let column = 0; column < columns; ++column) {
    for (let row = 0; row < rows; ++row) {
      turned[column * rows + row] = x[row * columns + column];
    }
  }
  return turned;
}
