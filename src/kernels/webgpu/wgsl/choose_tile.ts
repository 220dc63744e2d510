import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCallShape} from '../webgpu_call.js';
import type {Tile} from './tile.js';
import {tileQueries, tileThreads} from './tile.js';

/** What a program asks of its tile. */
export interface TileNeeds<T extends Tile> {
  /** Workgroup memory that it takes with a tile. */
  bytes: (tile: T) => number;
  /** What a tile should not be longer than: rows of a block, whose end no tile crosses. */
  extent?: number;
  /** Length of a tile: by default its query rows. */
  length?: (tile: T) => number;
  /** Whether a tile is to be preferred. */
  isEven?: (tile: T) => boolean;
}

/**
 * The first tile, in order of preference, that fits the device's workgroup memory and invocations and is not longer than
 * `extent`, even ones before others; where `extent` is shorter than any, the shortest. None where none fits.
 */
export function findTile<T extends Tile>(
  {backend}: Pick<WebGPUCallShape, 'backend'>,
  tiles: T[],
  {bytes, extent = Infinity, length = tileQueries, isEven = () => true}: TileNeeds<T>,
): T | undefined {
  const {maxComputeWorkgroupStorageSize, maxComputeInvocationsPerWorkgroup} = backend.device.limits;
  const fitting = tiles.filter(
    (tile) => bytes(tile) <= maxComputeWorkgroupStorageSize && tileThreads(tile) <= maxComputeInvocationsPerWorkgroup,
  );
  const longest = Math.max(extent, Math.min(...fitting.map(length)));
  const short = fitting.filter((tile) => length(tile) <= longest);
  return short.find(isEven) ?? short[0];
}

/** The same, where a head whose tiles do not fit is an error. The last tile takes least. */
export function chooseTile<T extends Tile>(
  call: Pick<WebGPUCallShape, 'op' | 'backend'>,
  tiles: T[],
  {dims: {headDim, valueDim}, ...needs}: TileNeeds<T> & {dims: HeadDims},
): T {
  const tile = findTile(call, tiles, needs);
  if (!tile) {
    const got = valueDim > headDim ? `value: got valueDim ${valueDim}` : `query: got headDim ${headDim}`;
    throw new Error(
      `${call.op}: ${got}, which needs ${needs.bytes(tiles[tiles.length - 1])} bytes of workgroup memory; this device has ` +
        `${call.backend.device.limits.maxComputeWorkgroupStorageSize}.`,
    );
  }
  return tile;
}
