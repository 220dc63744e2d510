import {matrixUnitsFit} from './attend_matrix_tile.js';
import type {HeadDims} from '../runtime/device_limits.js';

/** What attention multiplies with: float32; float16, also in sums of up to 16 products; or float16 on matrix units, with sums in float32. */
export type AttentionArithmetic = 'float32' | 'float16' | 'matrix units';

/** The one place that decides it, for `attend` and for the cost model. */
export function arithmeticOf(device: GPUDevice, dims: HeadDims, precision: 'float32' | 'float16'): AttentionArithmetic {
  if (precision === 'float32') {
    return 'float32';
  }
  if (matrixUnitsFit(device, dims)) {
    return 'matrix units';
  }
  return device.features.has('shader-f16') ? 'float16' : 'float32';
}
