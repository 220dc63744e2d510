import {util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../../../attention/block_geometry.js';

/**
 * Throws if a tensor of the op is larger than what one binding of the device can hold. Past that limit tfjs returns
 * zeros without an error. Below it (at most 4 GiB, so 2³⁰ elements) every index fits an i32.
 */
export function checkBufferSizes(op: string, backend: WebGPUBackend, shapes: Record<string, number[]>): void {
  const {maxStorageBufferBindingSize, maxBufferSize} = backend.device.limits;
  const limit = Math.min(maxStorageBufferBindingSize, maxBufferSize, 2 ** 32 - 4);
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 4 * util.sizeFromShape(shape);
    if (bytes > limit) {
      throw new Error(
        `${op}: ${name} [${shape}] takes ${bytes} bytes in one buffer; this WebGPU device takes at most ${limit}.`,
      );
    }
  }
}

/** Values of a row of query and key, and of a row of value and output. */
export type HeadDims = Pick<BlockGeometry, 'headDim' | 'valueDim'>;
