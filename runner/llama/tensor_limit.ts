import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {Failure} from '../failure';

/**
 * Throws a `Failure` if a float32 tensor is larger than the current backend can hold in one piece. tfjs itself would compute zeros
 * on WebGPU.
 *
 * @param shapes by the names that the error gives them.
 */
export function checkTensorSizes(shapes: Iterable<[name: string, shape: readonly number[]]>): void {
  const {bytes: most, what} = largestTensor();
  for (const [name, shape] of shapes) {
    const bytes = 4 * shape.reduce((product, size) => product * size, 1);
    if (bytes > most) {
      throw new Failure(
        'OutOfMemoryError',
        `${name} [${shape}] takes ${bytes} bytes in float32; accepted: at most ${most}, ${what} of this ` +
          `${tf.getBackend()} backend`,
      );
    }
  }
}

/** Most bytes of one tensor, and what sets the limit. */
export function largestTensor(): {bytes: number; what: string} {
  switch (tf.getBackend()) {
    case 'webgpu': {
      const {maxStorageBufferBindingSize, maxBufferSize} = (tf.backend() as WebGPUBackend).device.limits;
      return {bytes: Math.min(maxStorageBufferBindingSize, maxBufferSize), what: 'the largest storage binding'};
    }
    case 'webgl':
      return {bytes: 4 * tf.env().getNumber('WEBGL_MAX_TEXTURE_SIZE') ** 2, what: 'the largest texture'};
    default:
      return {bytes: Infinity, what: 'memory'};
  }
}
