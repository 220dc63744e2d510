import type {BlockGeometry} from '../../../attention/block_geometry.js';
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

/** The tiles of float32 that are tried before all others, by measurement (docs/performance.md, 2026-11-30). */
export const firstTiles = {
  /** For rows of up to 16 words where there are many workgroups: fewest reads of workgroup memory. */
  large: {threadsX: 8, threadsY: 16, rows: 4, columns: 4},
  /** The same where there are few. */
  small: {threadsX: 8, threadsY: 16, rows: 2, columns: 4},
  /** For longer rows, of which each invocation takes more. */
  wide: {threadsX: 4, threadsY: 32, rows: 2, columns: 4},
} satisfies Record<string, Tile>;

/** Workgroups that keep a large device busy: two for each multiprocessor of an H200. */
const manyWorkgroups = 256;

/**
 * In order of preference, by measurement (docs/performance.md); for float32 behind the first ones. The last ones are for large head dims in little workgroup memory: the very last
 * holds a head dim of 256 in the 16 KiB that every device has.
 */
const tiles: Record<ElementType, Tile[]> = {
  float32: [
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
 * Tiles of float32 and few rows, for decoding: what counts there is that many loads are on their way; five others were no faster
 * (docs/performance.md). Where none of them fits, or holds all rows, the tiles above serve.
 */
const fewRowTiles: Tile[] = [
  {threadsX: 16, threadsY: 4, rows: 2, columns: 2},
  {threadsX: 16, threadsY: 8, rows: 2, columns: 2},
  {threadsX: 8, threadsY: 4, rows: 2, columns: 2},
  {threadsX: 8, threadsY: 8, rows: 2, columns: 2},
  // Of 17 to 32 rows larger tiles are half empty: twice the time with heads of 128 (docs/performance.md, 2026-11-30).
  {threadsX: 8, threadsY: 16, rows: 2, columns: 2},
];

/**
 * Preferred are tiles whose invocations share a row of the output evenly and carry at most 32 values in registers.
 *
 * @param blockSize rows of a block, whose end no tile crosses, where there are blocks.
 */
export function chooseAttendTile(call: WebGPUCallShape, elementType: ElementType, blockSize?: number): Tile {
  const needs = {...attendNeeds(call.geometry, elementType), dims: call.geometry, extent: blockSize};
  return chooseTile(call, elementType === 'float32' ? float32Tiles(call.geometry) : tiles.float16, needs);
}

function float32Tiles({batch, heads, queryLength, headDim, valueDim}: BlockGeometry): Tile[] {
  const {large, small, wide} = firstTiles;
  const words = headWords(Math.max(headDim, valueDim), 'float32');
  if (words > 16) return [wide, small, ...tiles.float32];
  const workgroups = batch * heads * Math.ceil(queryLength / tileQueries(large));
  // With one word of the output an invocation of the large tile reads more weights than it saves keys.
  const isLarge = words > large.threadsX && workgroups >= manyWorkgroups;
  return [...(isLarge ? [large] : []), small, wide, ...tiles.float32];
}

/** The same for so few rows that they are one tile, if one of the tiles for them fits. */
export function chooseFewRowTile(call: WebGPUCallShape, rows: number): Tile | undefined {
  const holding = fewRowTiles.filter((tile) => tileQueries(tile) >= rows);
  return findTile(call, holding, attendNeeds(call.geometry, 'float32'));
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
