import {util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PBSAttentionAttrs} from '../attention_kernels.js';
import {summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {mostOwnBlocks} from '../block_geometry.js';
import {stateVectors} from './softmax_state.js';

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

/** Shapes of the tensors that grow fastest between the stages. */
export function planShapes(
  geometry: BlockGeometry,
  {probeRows, causal}: Pick<PBSAttentionAttrs, 'probeRows' | 'causal'>,
): Record<string, number[]> {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  const ownBlocks = mostOwnBlocks(geometry, causal);
  return {
    'key order': [batch, heads, keyLength],
    'block lists': [batch, heads, queryBlocks, keyBlocks + 1],
    ...(probeRows > 0 && {
      'log sums of probe rows': [batch, heads, queryBlocks * probeRows, keyBlocks],
      'log sums of own segments': [batch, heads, queryBlocks * summaryRows, ownBlocks],
    }),
  };
}

/** Shape of the state of the softmax that the remainder is handed on as. */
export function remainderShape({batch, heads, queryLength, valueDim}: BlockGeometry): Record<string, number[]> {
  return {remainder: [batch, heads, queryLength, 4 * stateVectors(valueDim)]};
}

/** Throws because no tile of the head dim (or of the value dim, where that is larger) is small enough for the device. */
export function failForHead(
  op: string,
  {limits}: GPUDevice,
  {headDim, valueDim}: Pick<BlockGeometry, 'headDim' | 'valueDim'>,
  needed: number,
): never {
  const got = valueDim > headDim ? `value: got valueDim ${valueDim}` : `query: got headDim ${headDim}`;
  throw new Error(
    `${op}: ${got}, which needs ${needed} bytes of workgroup memory; this device has ` +
      `${limits.maxComputeWorkgroupStorageSize}.`,
  );
}
