import {fragment, matrixUnitsOf, type MatrixUnits} from '../../../src/internal';

/** How a workgroup of `ProductMatrixProgram` shares out its part of a product. */
export interface ProductTile {
  /** Rows of x, and rows of weights, of a workgroup: columns of the output, or gates and ups together. */
  rows: number;
  columns: number;
  /** Rows and columns of a subgroup. */
  ofSubgroup: readonly [rows: number, columns: number];
}

/** Inputs that lie in workgroup memory at a time. */
export const DEPTH = 32;
/** Invocations of a subgroup: two share a row of what goes out. */
export const LANES = 32;
/** From one row of a tile in workgroup memory to the next, in float16: 16 bytes more, so that rows begin in different banks. */
export const TILE_STRIDE = DEPTH + 8;
/** From one row of the fragment that a subgroup hands out to the next, in float32. */
export const STAGED_STRIDE = fragment + 4;

/** The matrix units of a device that the program takes. */
export const productUnits = (device: GPUDevice): MatrixUnits | undefined => matrixUnitsOf(device, LANES);

export const subgroupsOf = ({rows, columns, ofSubgroup: [m, n]}: ProductTile): number => (rows / m) * (columns / n);
export const threadsOf = (tile: ProductTile): number => subgroupsOf(tile) * LANES;

/** float16 values of the tiles in workgroup memory. */
export const tileValues = (tile: ProductTile): number => (tile.rows + tile.columns) * TILE_STRIDE;

function workgroupBytes(tile: ProductTile): number {
  return 2 * tileValues(tile) + 4 * subgroupsOf(tile) * fragment * STAGED_STRIDE;
}

/** By name, the shape of a workgroup's tile, and of a subgroup's; others were slower (docs/performance.md, 2026-11-29). */
export const PRODUCT_TILES = {
  '256x128 by 64x64': {rows: 256, columns: 128, ofSubgroup: [64, 64]},
  '128x128 by 32x64': {rows: 128, columns: 128, ofSubgroup: [32, 64]},
  '64x64 by 32x32': {rows: 64, columns: 64, ofSubgroup: [32, 32]},
} as const satisfies Record<string, ProductTile>;

export function tileFits(tile: ProductTile, {limits}: GPUDevice): boolean {
  return (
    workgroupBytes(tile) <= limits.maxComputeWorkgroupStorageSize &&
    threadsOf(tile) <= limits.maxComputeInvocationsPerWorkgroup &&
    threadsOf(tile) <= limits.maxComputeWorkgroupSizeX
  );
}

/** Workgroups from which on a GPU is busy: about one for each multiprocessor of a large one. */
const BUSY = 100;
const LARGEST: ProductTile = PRODUCT_TILES['256x128 by 64x64'];
const LARGE: ProductTile = PRODUCT_TILES['128x128 by 32x64'];
/** Fits every WebGPU device: 15 KiB and 128 invocations. */
const SMALL: ProductTile = PRODUCT_TILES['64x64 by 32x32'];

/** The tile for a product of so many rows, and rows of weights: the largest that keeps a GPU busy (docs/performance.md). */
export function chooseTile(device: GPUDevice, rows: number, columns: number): ProductTile {
  const keepsBusy = (tile: ProductTile) => Math.ceil(rows / tile.rows) * Math.ceil(columns / tile.columns) >= BUSY;
  return [LARGEST, LARGE].find((tile) => keepsBusy(tile) && tileFits(tile, device)) ?? SMALL;
}
