import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {failForHead} from './device_limits.js';
import type {Tile} from './tile.js';
import {tileKeys, tileQueries, tileThreads} from './tile.js';

/** What the tiles of the attend stage hold, in words of 16 bytes: 4 values of float32 or 8 of float16. */
export type Held = 'float32' | 'float16';

export const wordValues = (held: Held) => (held === 'float32' ? 4 : 8);
export const headWords = (headDim: number, held: Held) => Math.ceil(headDim / wordValues(held));

/**
 * In order of preference, by measurement (docs/performance.md). The first fits 32 KiB with a head dim of 64; the last ones
 * are for large head dims in little workgroup memory: the very last holds a head dim of 256 in the 16 KiB that every
 * device has.
 */
const tiles: Record<Held, Tile[]> = {
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

/** An odd number of words from one row to the next: consecutive rows lie in different banks of workgroup memory. */
export const tileStride = (headDim: number, held: Held) => headWords(headDim, held) | 1;
/** The same for the weights of a row, which are stored together for the columns of an x, and for its partial maxima. */
export const rowStride = ({threadsX}: Tile) => threadsX + 1;

/** Words of a tile of keys or values that an invocation carries from global to workgroup memory. */
export const carriedWords = (tile: Tile, headDim: number, held: Held) =>
  Math.ceil((tileKeys(tile) * headWords(headDim, held)) / tileThreads(tile));

/** Workgroup memory of the attend stage: its declarations, counted. */
export function attendBytes(tile: Tile, headDim: number, held: Held): number {
  const rows = (tileQueries(tile) + tileKeys(tile)) * tileStride(headDim, held) * 16;
  const weights = tileQueries(tile) * rowStride(tile) * tile.columns * (held === 'float32' ? 4 : 2);
  const partials = tileQueries(tile) * rowStride(tile) * 4;
  const keyPositions = tileKeys(tile) * 4;
  const keyTileCount = 16;
  return rows + weights + partials + keyPositions + keyTileCount;
}

/**
 * The first tile that fits the device's workgroup memory and invocations and is not longer than a block, whose end no
 * tile crosses. Preferred are tiles whose invocations share a row of the head evenly and carry at most 32 values in
 * registers.
 */
export function chooseAttendTile(
  op: string,
  {device}: WebGPUBackend,
  headDim: number,
  blockSize: number,
  held: Held,
): Tile {
  const {maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup} = device.limits;
  const fitting = tiles[held].filter(
    (tile) =>
      attendBytes(tile, headDim, held) <= maxComputeWorkgroupStorageSize &&
      tileThreads(tile) <= maxComputeInvocationsPerWorkgroup,
  );
  if (fitting.length === 0) {
    failForHead(op, device, headDim, attendBytes(tiles[held][tiles[held].length - 1], headDim, held));
  }
  const short = fitting.filter((tile) => tileQueries(tile) <= blockSize);
  const isEven = (tile: Tile) =>
    headWords(headDim, held) % tile.threadsX === 0 && carriedWords(tile, headDim, held) * wordValues(held) <= 32;
  return short.find(isEven) ?? short[0] ?? fitting[fitting.length - 1];
}
