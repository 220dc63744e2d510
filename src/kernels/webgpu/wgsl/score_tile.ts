import {unroll} from '../../unroll.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {chooseTile} from './choose_tile.js';
import {headVectors, readRow} from './rows.js';
import {noScores} from './softmax_state.js';
import type {Tile} from './tile.js';
import {tileKeys, tileQueries, tileThreads} from './tile.js';

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

/** vec4 of a key tile that an invocation carries from global to workgroup memory. */
export const carriedVectors = (tile: Tile, headDim: number) =>
  Math.ceil((tileKeys(tile) * headVectors(headDim)) / tileThreads(tile));

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
    isEven: (tile) => headVectors(headDim) % tile.threadsX === 0 && carriedVectors(tile, headDim) <= 8,
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
 * Shader text shared by the programs that compute tiles of scores: constants, the two tiles in workgroup memory, a
 * function that loads query rows times `uniforms.logitScale`, and the products of all query and key rows.
 *
 * Scores are in units of log2, so that `exp2` gives weights: `logitScale` is the attention scale times log2(e).
 */
export function scoreTile(tile: Tile, headDim: number): string {
  const step = headVectors(headDim) % 4 === 0 ? 4 : 1;
  return `
const threads = ${tileThreads(tile)};
const threadsX = ${tile.threadsX};
const threadsY = ${tile.threadsY};
const rows = ${tile.rows};
const columns = ${tile.columns};
const tileQueries = ${tileQueries(tile)};
const tileKeys = ${tileKeys(tile)};
const headVectors = ${headVectors(headDim)};
const tileStride = ${tileStride(headDim)};${noScores}

var<workgroup> queryTile : array<vec4<f32>, ${tileQueries(tile) * tileStride(headDim)}>;
var<workgroup> keyTile : array<vec4<f32>, ${tileKeys(tile) * tileStride(headDim)}>;

${readRow('readQuery', 'query', headDim)}

// Loads query rows [firstRow, endRow) of a head, scaled; zeros follow.
fn loadQueryTile(head : i32, firstRow : i32, endRow : i32) {
  ${loadTile(
    'queryTile',
    tileQueries(tile),
    tile,
    headDim,
    (i) => `firstRow + ${i} < endRow`,
    (i, vector) => `uniforms.logitScale * readQuery(head * uniforms.queryShape.z + firstRow + ${i}, ${vector})`,
  )}
}

// This invocation's part of queryTile · keyTileᵀ; as fma by component, since a dot product would be added in a fifth step.
fn tileScores(x : i32, y : i32) -> array<array<f32, columns>, rows> {
  var scores : array<array<f32, columns>, rows>;
  for (var i = 0; i < headVectors; i += ${step}) {
    ${unroll(
      step,
      (u) => `{
      ${unroll(tile.rows, (r) => `let q${r} = queryTile[(y + ${r} * threadsY) * tileStride + i + ${u}];`)}
      ${unroll(
        tile.columns,
        (c) => `let k${c} = keyTile[(x + ${c} * threadsX) * tileStride + i + ${u}];
      ${unroll(tile.rows, (r) => `scores[${r}][${c}] = ${['x', 'y', 'z', 'w'].reduce((sum, e) => `fma(q${r}.${e}, k${c}.${e}, ${sum})`, `scores[${r}][${c}]`)};`)}`,
      )}
    }`,
    )}
  }
  return scores;
}`;
}

/** Shader text: a function that loads the keys [first, end) of a head, in their own order; zeros follow. Needs `keyRow`. */
export function loadKeysInPlace(tile: Tile, headDim: number): string {
  return `
${readRow('readKey', 'key', headDim)}
fn loadKeyTile(head : i32, heads : i32, first : i32, end : i32) {
  let firstKeyRow = keyRow(head, heads, first);
  ${loadTile(
    'keyTile',
    tileKeys(tile),
    tile,
    headDim,
    (i) => `first + ${i} < end`,
    (i, vector) => `readKey(firstKeyRow + ${i}, ${vector})`,
  )}
}`;
}

/** Loads of an invocation that are on their way at a time: more would take too many registers. */
const loadsAtOnce = 8;

/**
 * Shader text that fills a tile in workgroup memory, zeros where a row does not exist. Several loads of an invocation
 * come before the first of their stores: in a loop each would wait for the one before.
 */
export function loadTile(
  name: string,
  tileRows: number,
  tile: Tile,
  headDim: number,
  exists: (row: string) => string,
  read: (row: string, vector: string) => string,
): string {
  const size = tileRows * headVectors(headDim);
  const threads = tileThreads(tile);
  const rounds = Math.ceil(size / threads);
  const isWhole = (j: number) => size >= (j + 1) * threads;
  return unroll(Math.ceil(rounds / loadsAtOnce), (group) => {
    const first = group * loadsAtOnce;
    const count = Math.min(loadsAtOnce, rounds - first);
    const load = (k: number) => {
      const j = first + k;
      return `let load${j} = i32(localIndex) + ${j * threads};
    var x${j} = vec4<f32>(0.0);
    if (${isWhole(j) ? '' : `load${j} < ${size} && `}${exists(`load${j} / headVectors`)}) {
      x${j} = ${read(`load${j} / headVectors`, `load${j} % headVectors`)};
    }`;
    };
    const store = (k: number) => {
      const j = first + k;
      const place = `(load${j} / headVectors) * tileStride + load${j} % headVectors`;
      return `${isWhole(j) ? '' : `if (load${j} < ${size}) `}{ ${name}[${place}] = x${j}; }`;
    };
    return `${unroll(count, load)}
    ${unroll(count, store)}`;
  });
}
