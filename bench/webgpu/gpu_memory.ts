import {dispose, tidy} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {Call} from '../device';
import {finish} from './dispatch_timing';

/**
 * Most bytes of buffers that a call holds on the GPU at one time beyond those that were there, its output included.
 * Counted where tfjs hands out buffers, so that it misses nothing that goes through its pool.
 */
export async function peakBytes(backend: WebGPUBackend, call: Call): Promise<number> {
  // Once before: the inputs are uploaded, and a buffer waiting to be freed is not counted.
  dispose(tidy(call));
  await finish(backend);
  const pool = backend.bufferManager;
  const acquireBuffer = pool.acquireBuffer;
  const start = pool.numBytesUsed;
  let peak = 0;
  pool.acquireBuffer = function (...args) {
    const buffer = acquireBuffer.apply(this, args);
    peak = Math.max(peak, pool.numBytesUsed - start);
    return buffer;
  };
  try {
    dispose(tidy(call));
    await finish(backend);
  } finally {
    pool.acquireBuffer = acquireBuffer;
  }
  return peak;
}
