import type {WebGPUCall} from '../webgpu_call.js';
import {chooseTile} from './choose_tile.js';
import type {KeysVariant} from './key_lengths.js';
import {keyEnd} from './key_lengths.js';
import {headVectors, keyRow, localOf, readRow, workgroupIndex} from './rows.js';
import {noScores} from './softmax_state.js';
import type {Tile} from './tile.js';
import {tileConstants, tileKeys, tileQueries, tileThreads} from './tile.js';
import {TileLoad} from './tile_load.js';
import {addRowProducts} from './tile_products.js';

/**
 * In order of preference, by measurement (docs/performance.md). The last ones are for large head dims in little workgroup
 * memory: the very last holds a head dim of 256 in the 16 KiB that every device has.
 */
const tiles: Tile[] = [
  {threadsX: 8, threadsY: 16, rows: 2, columns: 4},
  {threadsX: 16, threadsY: 8, rows: 4, columns: 2},
  {threadsX: 8, threadsY: 16, rows: 4, columns: 2},
  {threadsX: 4, threadsY: 32, rows: 2, columns: 4},
  {threadsX: 16, threadsY: 4, rows: 4, columns: 2},
  {threadsX: 8, threadsY: 8, rows: 2, columns: 2},
  {threadsX: 4, threadsY: 8, rows: 2, columns: 2},
  {threadsX: 2, threadsY: 4, rows: 2, columns: 2},
];

/** How `count` rows get into one of the tiles. */
export const scoreTileLoad = (tile: Tile, count: number, headDim: number): TileLoad =>
  new TileLoad(count, headVectors(headDim), tileThreads(tile));

/**
 * The tile of the programs that score keys. Preferred are tiles whose invocations share a row of the head evenly and carry at
 * most 8 vec4 in registers.
 *
 * @param extent rows of a block, whose end no tile crosses.
 */
export function chooseScoreTile(call: WebGPUCall, extent: number): Tile {
  const {headDim} = call.geometry;
  return chooseTile(call, tiles, {
    dims: {headDim, valueDim: headDim},
    bytes: (tile) => tileBytes(tile, headDim),
    extent,
    isEven: (tile) =>
      headVectors(headDim) % tile.threadsX === 0 && scoreTileLoad(tile, tileKeys(tile), headDim).rounds <= 8,
  });
}

/** vec4 from one row of a tile in workgroup memory to the next: odd, so that consecutive rows lie in different banks. */
const tileStride = (headDim: number) => headVectors(headDim) | 1;

/** Workgroup memory of the programs that score tiles, counted generously: two tiles, and twice the scores. */
function tileBytes(tile: Tile, headDim: number): number {
  const rows = (tileQueries(tile) + tileKeys(tile)) * tileStride(headDim) * 16;
  const probabilities = tileQueries(tile) * tile.threadsX * tile.columns * 4;
  const rowPartials = tileQueries(tile) * tile.threadsX * 4;
  const keyPositions = tileKeys(tile) * 4;
  const keyTileCount = 16;
  return rows + probabilities + rowPartials + keyPositions + keyTileCount;
}

/**
 * Shader text shared by the programs that compute tiles of scores: constants, the two tiles in workgroup memory, functions that
 * read rows and load tiles, of query rows times `uniforms.logitScale`, and the products of all query and key rows.
 *
 * Scores are in units of log2, so that `exp2` gives weights: `logitScale` is the attention scale times log2(e).
 */
export function scoreTile(tile: Tile, {headDim, padded}: KeysVariant): string {
  return `${workgroupIndex}
${tileConstants(tile)}
const tileStride = ${tileStride(headDim)};${noScores}

var<workgroup> queryTile : array<vec4<f32>, ${tileQueries(tile) * tileStride(headDim)}>;
var<workgroup> keyTile : array<vec4<f32>, ${tileKeys(tile) * tileStride(headDim)}>;

${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${keyRow}${keyEnd({padded})}

// Loads query rows [firstRow, endRow) of a head, scaled; zeros follow.
fn loadQueryTile(head : i32, firstRow : i32, endRow : i32) {
  ${localOf(tileThreads(tile))}
  ${scoreTileLoad(tile, tileQueries(tile), headDim).loadTile('queryTile', {
    exists: (row) => `firstRow + ${row} < endRow`,
    read: (row, vector) =>
      `uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + ${row}, ${vector})`,
  })}
}

// Loads the keys [first, end) of a head, in their own order; zeros follow.
fn loadKeyTile(head : i32, first : i32, end : i32) {
  let firstKeyRow = keyRow(head, first);
  ${localOf(tileThreads(tile))}
  ${scoreTileLoad(tile, tileKeys(tile), headDim).loadTile('keyTile', {
    exists: (row) => `first + ${row} < end`,
    read: (row, vector) => `readKey(firstKeyRow + ${row}, ${vector})`,
  })}
}

// This invocation's part of queryTile · keyTileᵀ.
fn tileScores(column : i32, row : i32) -> array<array<f32, columns>, rows> {
  // In range, as the compiler can see (see localOf).
  let x = i32(min(u32(column), threadsX - 1u));
  let y = i32(min(u32(row), threadsY - 1u));
  var scores : array<array<f32, columns>, rows>;
  ${addRowProducts(tile, {left: 'queryTile', right: 'keyTile', sums: 'scores', width: headVectors(headDim)})}
  return scores;
}`;
}
