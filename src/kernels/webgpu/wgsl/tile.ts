import {localOf} from './rows.js';

/**
 * A tile of scores: `queries` rows by `keys` columns, computed by a workgroup of `threadsX * threadsY` invocations.
 * Invocation (x, y) owns the rows `y + r * threadsY` and the columns `x + c * threadsX`, so that neighbours read
 * neighbouring rows of the two tiles, and one read from workgroup memory feeds several multiply-adds.
 */
export interface Tile {
  threadsX: number;
  threadsY: number;
  /** Rows an invocation. */
  rows: 2 | 4;
  /** Columns an invocation. Rows and columns are also the components of the vectors in which they are exchanged. */
  columns: 2 | 4;
}

export const tileThreads = ({threadsX, threadsY}: Tile) => threadsX * threadsY;
export const tileQueries = ({threadsY, rows}: Tile) => threadsY * rows;
export const tileKeys = ({threadsX, columns}: Tile) => threadsX * columns;

/** Shader text: the sizes of a tile, whose rows are queries unless told otherwise. */
export const tileConstants = (
  tile: Tile,
  [queries, keys] = [tileQueries(tile), tileKeys(tile)],
): string => `const threads = ${tileThreads(tile)};
const threadsX = ${tile.threadsX};
const threadsY = ${tile.threadsY};
const rows = ${tile.rows};
const columns = ${tile.columns};
const tileQueries = ${queries};
const tileKeys = ${keys};`;

/** Expressions: row r and column c of an invocation. */
export const rowOf = (r: number): string => `y + ${r} * threadsY`;
export const columnOf = (c: number): string => `x + ${c} * threadsX`;

/**
 * From the weights of one row to those of the next in workgroup memory, which are stored together for the columns of an x: odd,
 * so that consecutive rows lie in different banks.
 */
export const weightStride = ({threadsX}: Tile) => threadsX + 1;

/**
 * Shader text: the place (x, y) of an invocation. Neighbours take turns: the lowest bits of the index are y, x, y, x, so that
 * any 4 of them read 2 rows and 2 columns, and any 16 of them 4 and 4. A read of 16 bytes goes to workgroup memory in quarters
 * of a subgroup, two at once if neighbours share what they read.
 */
export function invocationPlace(tile: Tile): string {
  const {threadsX, threadsY} = tile;
  const local = localOf(tileThreads(tile));
  if (threadsX < 4 || threadsY < 4) {
    return `  ${local}
  let x = local % threadsX;
  let y = local / threadsX;`;
  }
  return `  ${local}
  let x = local / 2 % 2 + local / 8 % 2 * 2 + 4 * (local / 16 % ${threadsX / 4});
  let y = local % 2 + local / 4 % 2 * 2 + 4 * (local / 16 / ${threadsX / 4});`;
}
