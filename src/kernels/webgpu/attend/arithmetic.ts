import {matrixUnitsFit} from './attend_matrix_tile.js';
import type {HeadDims} from '../runtime/device_limits.js';

/** What attention multiplies with: the one place that decides it, for `attend` and for the cost model. */
export type Arithmetic = 'float32' | 'float16' | 'matrix units';

export function arithmeticOf(device: GPUDevice, dims: HeadDims, precision: 'float32' | 'float16'): Arithmetic {
  if (precision === 'float32') {
    return 'float32';
  }
  if (matrixUnitsFit(device, dims)) {
    return 'matrix units';
  }
  return device.features.has('shader-f16') ? 'float16' : 'float32';
}
