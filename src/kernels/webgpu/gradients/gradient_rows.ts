import type {AttendForm} from '../attend/attend_form.js';
import {ownedRows} from '../attend/attend_walk.js';
import {columnOf} from '../wgsl/tile.js';
import type {Ahead} from './gradient_passes.js';

/* What the stages of the gradients know of the rows that they walk over. */

/**
 * Shader text: the row of a key of tile t of those that a workgroup walks over; -1 for none.
 *
 * @param end expression, the end of the keys of a head that are not padding, where `positionIn` does not know it. What padding
 *     holds must not even be multiplied by 0, which leaves a NaN a NaN.
 */
export const visitedKey = (end?: string): string => `
fn visitedKey(head : i32, firstKeyRow : i32, keySpan : vec2<i32>, slot : i32) -> i32 {
  let position = positionIn(head, keySpan, slot);
  return select(firstKeyRow + position, -1, position ${end ? `>= ${end}` : '== paddingPosition'});
}`;

/** Shader text: the query rows of a workgroup, and the tiles of keys that it walks over. */
export const ownedQueries = (form: AttendForm): string => `${ownedRows(form)}
  let firstQueryRow = head * uniforms.queryLength;
  if (local < tileQueries) {
    let row = firstRow + local;
    ownedRows[local] = select(-1, firstQueryRow + row, row < endRow);
  }`;

/** Reads ahead where the keys stand. */
export const keysAhead: Ahead = {
  statistics: false,
  read: (t) => `aheadRow = visitedKey(head, firstKeyRow, keySlots(head, queryTileIndex, ${t}, keyTiles), local);`,
};

/** Expression: the position of the key in column c; paddingPosition for none. */
export const walkedPosition = (c: number) =>
  `select(paddingPosition, walkedRows[now + ${columnOf(c)}] - firstKeyRow, walkedRows[now + ${columnOf(c)}] >= 0)`;

/** Shader text: statistics of a row that does not exist: it sees nothing. */
export const noStatistics = 'const noStatistics = vec4<f32>(0.0, 0.0, -1.0, 0.0);';
