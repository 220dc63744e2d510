import type {KernelConfig} from '@tensorflow/tfjs-core';
import {attentionKernels} from '../../attention/driver.js';
import {hostStages} from '../cpu/host_stages.js';
import {attend} from './attend/attend.js';
import {composedCosts} from './costs.js';
import {attendGradients} from './gradients/attend_gradients.js';

/**
 * Kernels for a backend that has none of its own, as wasm: tile by tile in ops of tfjs, of which any backend has matMul and softmax. Which
 * rows and keys make a tile, and which blocks count, is worked out in JavaScript.
 */
export function composedKernels(backendName: string): KernelConfig[] {
  const stages = hostStages({backendName, costs: () => composedCosts, attend, attendGradients});
  return attentionKernels({
    ...stages,
    open(backend, request, scratch) {
      try {
        return stages.open(backend, request, scratch);
      } catch (cause) {
        const takes = 'one from which tensors can be read at once (dataSync), or one of cpu, webgl, webgpu';
        throw new Error(`${request.op}: backend: got '${backendName}', which does not give values; takes ${takes}.`, {
          cause,
        });
      }
    },
  });
}
