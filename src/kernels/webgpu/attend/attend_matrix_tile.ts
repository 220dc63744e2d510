import {fragment, hasMatrixUnits, subgroupSize} from '../runtime/device_features.js';
import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';

/** Subgroups of a workgroup of `AttendMatrixProgram`. */
export const subgroups = 4;
export const threads = subgroups * subgroupSize;

/** What a workgroup of `AttendMatrixProgram` takes at a time. */
export interface MatrixTile {
  /**
   * Fragments of query rows of a subgroup. Two of them share what is read of keys and values, as far as registers hold their queries
   * and outputs; and then each invocation has a row of its own.
   */
  rowFragments: 1 | 2;
  keys: 16 | 32;
}

/** Query rows of all heads from which on there are many workgroups. Tests lower it. */
export const matrixTiles = {manyRows: 65_536};

/** The largest head dim whose fragments leave room in registers for two of rows. */
const sharedHeadDim = 64;

/**
 * Few workgroups wait for barriers, of which more keys a tile need fewer; many for workgroup memory, of which fewer keys leave room for
 * other workgroups (docs/performance.md, 2026-11-30).
 */
export function chooseMatrixTile({backend, geometry}: WebGPUCall, sparse: boolean): MatrixTile {
  const {batch, heads, queryLength, blockSize} = geometry;
  const isShared = Math.max(geometry.headDim, geometry.valueDim) <= sharedHeadDim;
  const isMany = batch * heads * queryLength >= matrixTiles.manyRows;
  // No tile crosses the end of a block of queries.
  const fills = !sparse || blockSize % rowsOfTile({rowFragments: 2}) === 0;
  const rowFragments = isShared && fills ? 2 : 1;
  const longer: MatrixTile = {rowFragments, keys: 32};
  return isShared && !isMany && fitsMemory(backend.device, geometry, longer) ? longer : {rowFragments, keys: 16};
}

export const rowsOfTile = ({rowFragments}: Pick<MatrixTile, 'rowFragments'>): number =>
  subgroups * rowFragments * fragment;

// Strides of rows in workgroup memory: multiples of 16 bytes, padded so that consecutive rows lie in different banks: a row more
// than that, for weights, costs a fifth.
export const tileStride = (headDim: number): number => paddedHeadDim(headDim) + 8;
export const scoreStride = ({keys}: MatrixTile): number => keys + 4;
export const weightStride = ({keys}: MatrixTile): number => keys + 8;

/** float16 values of the tiles: keys and values. */
export const tileSize = ({headDim, valueDim}: HeadDims, {keys}: MatrixTile): number =>
  keys * (tileStride(headDim) + tileStride(valueDim));

/** Whether the device has the workgroup memory that the program declares. */
function fitsMemory(device: GPUDevice, dims: HeadDims, tile: MatrixTile): boolean {
  const scores = 4 * rowsOfTile(tile) * scoreStride(tile);
  const weights = 2 * rowsOfTile(tile) * weightStride(tile);
  const positions = 4 * tile.keys;
  const flags = 3 * 16;
  const bytes = 2 * tileSize(dims, tile) + scores + weights + positions + flags;
  return bytes <= device.limits.maxComputeWorkgroupStorageSize;
}

/** Whether the device has matrix units of the kind that the program uses, and the workgroup memory for the head dims. */
export function matrixUnitsFit(device: GPUDevice, dims: HeadDims): boolean {
  const rowFragments = Math.max(dims.headDim, dims.valueDim) <= sharedHeadDim ? 2 : 1;
  return hasMatrixUnits(device) && fitsMemory(device, dims, {rowFragments, keys: 16});
}
