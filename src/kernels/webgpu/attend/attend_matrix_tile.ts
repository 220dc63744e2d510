import type {MatrixUnits} from '../runtime/device_features.js';
import {matrixUnitsOf} from '../runtime/device_features.js';
import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';

/** Invocations of a workgroup of `AttendMatrixProgram`. */
export const threads = 128;

/** What a workgroup of `AttendMatrixProgram` takes at a time. */
export interface MatrixTile {
  units: MatrixUnits;
  /**
   * Invocations that share a row of scores. Where each has a row of its own, a subgroup's rows are twice as many, which share what is read of
   * keys and values, as far as registers hold their queries and outputs.
   */
  lanesOfRow: 1 | 2;
  keys: 16 | 32;
}

/** Query rows of all heads from which on there are many workgroups. Tests lower it. */
export const matrixTiles = {manyRows: 65_536};

/** The largest head dim whose fragments leave room in registers for as many rows as invocations. */
const sharedHeadDim = 64;

/**
 * Few workgroups wait for barriers, of which more keys a tile need fewer; many for workgroup memory, of which fewer keys leave room for
 * other workgroups (docs/performance.md, 2026-11-30).
 */
export function chooseMatrixTile({backend, geometry}: WebGPUCall, units: MatrixUnits, sparse: boolean): MatrixTile {
  const {batch, heads, queryLength, blockSize} = geometry;
  const isShared = Math.max(geometry.headDim, geometry.valueDim) <= sharedHeadDim;
  const isMany = batch * heads * queryLength >= matrixTiles.manyRows;
  // No tile crosses the end of a block of queries.
  const fills = !sparse || blockSize % rowsOfTile({lanesOfRow: 1}) === 0;
  const lanesOfRow = isShared && fills ? 1 : 2;
  const longer: MatrixTile = {units, lanesOfRow, keys: 32};
  return isShared && !isMany && fitsMemory(backend.device, geometry, longer) ? longer : {units, lanesOfRow, keys: 16};
}

export const rowsOfTile = ({lanesOfRow}: Pick<MatrixTile, 'lanesOfRow'>): number => threads / lanesOfRow;

// Strides of rows in workgroup memory: multiples of 16 bytes, padded so that consecutive rows lie in different banks: a row more
// than that, for weights, costs a fifth.
export const tileStride = (headDim: number): number => paddedHeadDim(headDim) + 8;
export const scoreStride = ({keys}: Pick<MatrixTile, 'keys'>): number => keys + 4;
export const weightStride = ({keys}: Pick<MatrixTile, 'keys'>): number => keys + 8;

/** float16 values of the tiles: keys and values. */
export const tileSize = ({headDim, valueDim}: HeadDims, {keys}: Pick<MatrixTile, 'keys'>): number =>
  keys * (tileStride(headDim) + tileStride(valueDim));

/** Whether the device has the workgroup memory that the program declares. */
function fitsMemory(device: GPUDevice, dims: HeadDims, tile: Omit<MatrixTile, 'units'>): boolean {
  const scores = 4 * rowsOfTile(tile) * scoreStride(tile);
  const weights = 2 * rowsOfTile(tile) * weightStride(tile);
  const positions = 4 * tile.keys;
  const flags = 3 * 16;
  const bytes = 2 * tileSize(dims, tile) + scores + weights + positions + flags;
  return bytes <= device.limits.maxComputeWorkgroupStorageSize;
}

/** Whether the device has matrix units, and the workgroup memory for the head dims. */
export function matrixUnitsFit(device: GPUDevice, dims: HeadDims): boolean {
  const lanesOfRow = Math.max(dims.headDim, dims.valueDim) <= sharedHeadDim ? 1 : 2;
  return matrixUnitsOf(device) !== undefined && fitsMemory(device, dims, {lanesOfRow, keys: 16});
}
