import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCallShape} from '../webgpu_call.js';
import type {TileNeeds} from '../wgsl/choose_tile.js';
import {chooseTile, findTile} from '../wgsl/choose_tile.js';
import type {Tile} from '../wgsl/tile.js';
import {tileKeys, tileQueries, tileThreads, weightStride} from '../wgsl/tile.js';

/** What the tiles of the attend stage hold, in words of 16 bytes: 4 values of float32 or 8 of float16. */
export type ElementType = 'float32' | 'float16';

export const wordValues = (elementType: ElementType) => (elementType === 'float32' ? 4 : 8);
export const headWords = (headDim: number, elementType: ElementType) => Math.ceil(headDim / wordValues(elementType));

/**
 * In order of preference, by measurement (docs/performance.md). The first fits 32 KiB with a head dim of 64; the last ones
 * are for large head dims in little workgroup memory: the very last holds a head dim of 256 in the 16 KiB that every
 * device has.
 */
const tiles: Record<ElementType, Tile[]> = {
  float32: [
    {threadsX: 8, threadsY: 16, rows: 2, columns: 4},
    {threadsX: 4, threadsY: 32, rows: 2, columns: 4},
    {threadsX: 8, threadsY: 16, rows: 2, columns: 2},
    {threadsX: 8, threadsY: 8, rows: 2, columns: 4},
    {threadsX: 4, threadsY: 16, rows: 2, columns: 4},
    {threadsX: 4, threadsY: 16, rows: 2, columns: 2},
    {threadsX: 4, threadsY: 8, rows: 2, columns: 2},
    {threadsX: 2, threadsY: 4, rows: 2, columns: 2},
  ],
  float16: [
    {threadsX: 8, threadsY: 16, rows: 4, columns: 4},
    {threadsX: 8, threadsY: 16, rows: 2, columns: 4},
    {threadsX: 8, threadsY: 8, rows: 2, columns: 4},
    {threadsX: 4, threadsY: 8, rows: 2, columns: 4},
    {threadsX: 2, threadsY: 4, rows: 2, columns: 2},
  ],
};

/**
 * Words from one row to the next, the same for queries, keys and values; an odd number: consecutive rows lie in different
 * banks of workgroup memory.
 */
export const tileStride = ({headDim, valueDim}: HeadDims, elementType: ElementType) =>
  headWords(Math.max(headDim, valueDim), elementType) | 1;

/** Workgroup memory of the attend stage: its declarations, counted. */
function attendBytes(tile: Tile, dims: HeadDims, elementType: ElementType): number {
  const rows = (tileQueries(tile) + tileKeys(tile)) * tileStride(dims, elementType) * 16;
  const weights = tileQueries(tile) * weightStride(tile) * tile.columns * (elementType === 'float32' ? 4 : 2);
  const partials = tileQueries(tile) * weightStride(tile) * 4;
  const keyPositions = tileKeys(tile) * 4;
  const largestBits = elementType === 'float32' ? 0 : tileQueries(tile) * 4;
  const keyTileCountAndWithheld = 2 * 16;
  return rows + weights + partials + keyPositions + largestBits + keyTileCountAndWithheld;
}

/**
 * Tiles of few rows, for decoding: what counts there is that many loads are on their way; five others were no faster
 * (docs/performance.md). Where none of them fits, or holds all rows, the tiles above serve.
 */
const fewRowTiles: Record<ElementType, Tile[]> = {
  float32: [
    {threadsX: 16, threadsY: 4, rows: 2, columns: 2},
    {threadsX: 16, threadsY: 8, rows: 2, columns: 2},
    {threadsX: 8, threadsY: 4, rows: 2, columns: 2},
    {threadsX: 8, threadsY: 8, rows: 2, columns: 2},
  ],
  float16: [
    {threadsX: 8, threadsY: 8, rows: 2, columns: 4},
    {threadsX: 4, threadsY: 8, rows: 2, columns: 4},
  ],
};

/**
 * Preferred are tiles whose invocations share a row of the output evenly and carry at most 32 values in registers.
 *
 * @param blockSize rows of a block, whose end no tile crosses, where there are blocks.
 */
export function chooseAttendTile(call: WebGPUCallShape, elementType: ElementType, blockSize?: number): Tile {
  const needs = {...attendNeeds(call.geometry, elementType), dims: call.geometry, extent: blockSize};
  return chooseTile(call, tiles[elementType], needs);
}

/** The same for so few rows that they are one tile, if one of the tiles for them fits. */
export function chooseFewRowTile(call: WebGPUCallShape, elementType: ElementType, rows: number): Tile | undefined {
  const holding = fewRowTiles[elementType].filter((tile) => tileQueries(tile) >= rows);
  return findTile(call, holding, attendNeeds(call.geometry, elementType));
}

function attendNeeds(dims: HeadDims, elementType: ElementType): TileNeeds<Tile> {
  const {headDim, valueDim} = dims;
  const words = headWords(Math.max(headDim, valueDim), elementType);
  // Values that an invocation carries from global to workgroup memory.
  const carried = (tile: Tile) => Math.ceil((tileKeys(tile) * words) / tileThreads(tile)) * wordValues(elementType);
  return {
    bytes: (tile) => attendBytes(tile, dims, elementType),
    isEven: (tile) => headWords(valueDim, elementType) % tile.threadsX === 0 && carried(tile) <= 32,
  };
}
