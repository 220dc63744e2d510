import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {chooseTile} from '../wgsl/choose_tile.js';
import {headVectors} from '../wgsl/rows.js';
import type {Tile} from '../wgsl/tile.js';
import {tileKeys, tileQueries, weightStride} from '../wgsl/tile.js';

/**
 * A tile of the gradient stages. A workgroup owns `threadsY * rows` rows (queries, or keys) and walks over
 * `threadsX * columns` of the others at a time; invocations have places in it as in `Tile`.
 *
 * Rows stand in workgroup memory in chunks. Where a chunk holds whole heads, owned rows are loaded once, and walked rows
 * once for all that is done with them in turn. Where it does not, chunks of both pass through, and what a head takes does
 * not grow with it.
 */
export interface GradientTile extends Tile {
  /** vec4 of a row that stand in workgroup memory at a time. */
  chunk: number;
}

/** Rows that a workgroup owns, and rows that it walks over at a time. */
export const ownedCount = tileQueries;
export const walkedCount = tileKeys;

const longestHead = ({headDim, valueDim}: HeadDims) => headVectors(Math.max(headDim, valueDim));

/** Whether owned rows are kept, as a chunk holds whole heads. */
export const isKept = ({chunk}: GradientTile, dims: HeadDims) => longestHead(dims) <= chunk;

/**
 * In order of preference, by measurement (docs/performance.md). The first fits 32 KiB with a head dim of 64 and, in chunks, with
 * any; in 16 KiB smaller tiles do that. The last ones are for short blocks.
 */
const tiles: Array<Tile & {chunk?: number}> = [
  {threadsX: 8, threadsY: 16, rows: 2, columns: 4},
  {threadsX: 8, threadsY: 16, rows: 2, columns: 4, chunk: 16},
  {threadsX: 8, threadsY: 16, rows: 2, columns: 2},
  {threadsX: 8, threadsY: 8, rows: 2, columns: 2},
  {threadsX: 8, threadsY: 16, rows: 2, columns: 4, chunk: 8},
  {threadsX: 8, threadsY: 8, rows: 2, columns: 2, chunk: 8},
];

/** Words of 16 bytes from one row of a chunk to the next: odd, so that consecutive rows lie in different banks. */
export const chunkStride = ({chunk}: GradientTile, dims: HeadDims) => Math.min(chunk, longestHead(dims)) | 1;

/** Workgroup memory of the stage that takes most, gradient key: its declarations, counted. */
function gradientBytes(tile: GradientTile, dims: HeadDims): number {
  const [owned, walked] = [ownedCount(tile), walkedCount(tile)];
  const rows = (isKept(tile, dims) ? 2 * owned : owned) + walked;
  const weights = owned * weightStride(tile) * tile.columns * 4;
  const walkedStatistics = 2 * walked * 16;
  const indices = (owned + 2 * walked) * 4;
  const roundCountAndNotFinite = 2 * 16;
  return rows * chunkStride(tile, dims) * 16 + weights + walkedStatistics + indices + roundCountAndNotFinite;
}

/** @param extent the smaller block size, as no tile crosses a block's end, or the length where attention is exact. */
export function chooseGradientTile(call: WebGPUCall, extent: number): GradientTile {
  const dims = call.geometry;
  const ofHead = tiles.map((tile) => ({...tile, chunk: tile.chunk ?? longestHead(dims)}));
  return chooseTile(call, ofHead, {
    dims,
    bytes: (tile) => gradientBytes(tile, dims),
    extent,
    length: (tile) => Math.max(ownedCount(tile), walkedCount(tile)),
  });
}
