import {util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/** tfjs's own, private in its types. */
interface BufferManager {
  /** Makes the buffers, and nothing else. */
  device: Pick<GPUDevice, 'createBuffer'>;
  numFreeBuffers: number;
  numBytesAllocated: number;
  /** By size and usage. */
  freeBuffers: Map<string, GPUBuffer[]>;
  usedBuffers: Map<string, GPUBuffer[]>;
}

export const bufferManagerOf = (backend: WebGPUBackend): BufferManager =>
  backend.bufferManager as unknown as BufferManager;

/** Destroys the buffers that tfjs keeps for later. */
export function releaseKeptBuffers(backend: WebGPUBackend): void {
  const manager = bufferManagerOf(backend);
  // A copy into one of them may be recorded.
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  backend.submitQueue();
  for (const buffers of manager.freeBuffers.values()) {
    for (const buffer of buffers.splice(0)) {
      buffer.destroy();
      manager.numFreeBuffers--;
      manager.numBytesAllocated -= buffer.size;
    }
  }
}

/** tfjs leaves the buffer of a read that fails. Those of others are mapped, or about to be. */
export function releaseUnmappedBuffers(backend: WebGPUBackend): void {
  const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ;
  for (const buffers of bufferManagerOf(backend).usedBuffers.values()) {
    buffers
      .filter((buffer) => buffer.usage === usage && buffer.mapState === 'unmapped')
      .forEach((buffer) => backend.bufferManager.releaseBuffer(buffer, false));
  }
}

/**
 * Runs the upload of a tensor of that shape. tfjs takes a buffer, then one to write into; where there is no second one, it leaves the
 * first, which is given back then.
 */
export function givingBackBuffers(backend: WebGPUBackend, shape: number[], upload: () => void): void {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const key = `${4 * util.sizeFromShape(shape)}_${usage}`;
  const buffers = () => bufferManagerOf(backend).usedBuffers.get(key) ?? [];
  const before = buffers().length;
  try {
    upload();
  } catch (error) {
    buffers()
      .slice(before)
      .forEach((buffer) => backend.bufferManager.releaseBuffer(buffer));
    throw error;
  }
}
