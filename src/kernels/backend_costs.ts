import {backend, getBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../attention/block_geometry.js';
import type {AttentionCosts} from '../attention/cost_model.js';
import {cpuCosts} from './cpu/costs.js';
import {webglCosts} from './webgl/costs.js';
import {webgpuCosts} from './webgpu/costs.js';

/** What attention costs on the active backend: the figures that its kernels decide by. It has the kernels. */
export function backendCosts(
  {headDim, valueDim}: Pick<BlockGeometry, 'headDim' | 'valueDim'>,
  precision: 'float32' | 'float16',
): AttentionCosts {
  switch (getBackend()) {
    case 'webgpu':
      return webgpuCosts((backend() as WebGPUBackend).device, headDim, precision, valueDim);
    case 'webgl':
      return webglCosts;
    default:
      return cpuCosts;
  }
}
