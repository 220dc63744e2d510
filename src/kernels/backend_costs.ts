import {backend, getBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../attention/block_geometry.js';
import type {AttentionCosts} from '../attention/cost_model.js';
import type {DeviceClass, DeviceDescription} from '../attention/device_costs.js';
import {constantsInUse} from '../attention/device_costs.js';
import {costsOf as costsOnCPU, processor} from './cpu/costs.js';
import {costsOf as costsOnWebGL} from './webgl/costs.js';
import {composedCosts} from './composed/costs.js';
import {describeAdapter as describeRenderer} from './webgl/runtime/adapter.js';
import {costsOf as costsOnWebGPU} from './webgpu/costs.js';
import {describeAdapter} from './webgpu/runtime/adapter.js';

/** What attention costs on the active backend: the figures that its kernels decide by. It has the kernels. */
export function backendCosts(
  dims: Pick<BlockGeometry, 'headDim' | 'valueDim'>,
  precision: 'float32' | 'float16',
): AttentionCosts {
  switch (getBackend()) {
    case 'webgpu':
      return costsOnWebGPU(backend() as WebGPUBackend, dims, precision);
    case 'webgl':
      return costsOnWebGL(backend() as MathBackendWebGL);
    case 'cpu':
      return costsOnCPU(backend());
    default:
      return composedCosts;
  }
}

/** The device of the active backend, which has the kernels. */
export function backendDevice(): DeviceDescription {
  switch (getBackend()) {
    case 'webgpu':
      return describeAdapter(backend() as WebGPUBackend);
    case 'webgl':
      return describeRenderer(backend() as MathBackendWebGL);
    default:
      return processor;
  }
}

/** Where the costs of the active backend come from. */
export function costBasis(): 'calibration' | DeviceClass {
  return constantsInUse(backend()) ? 'calibration' : backendDevice().deviceClass;
}
