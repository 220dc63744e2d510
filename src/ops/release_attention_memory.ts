import {backend, getBackend, getKernel} from '@tensorflow/tfjs-core';
import {FlashAttention} from '../attention/attention_kernels.js';

/**
 * Frees what is kept on the current backend for later calls and in use by nothing: on WebGL the kernels' textures, 256 MiB or what the last call had at once, and
 * tfjs's own; on WebGPU tfjs's buffers, of which it frees none by itself. Later calls allocate anew. Nothing on other backends.
 *
 * What the kernels keep also goes when a backend is removed.
 */
export function releaseAttentionMemory(): void {
  const name = getBackend();
  if (name) {
    getKernel(FlashAttention, name)?.disposeFunc?.(backend());
  }
}
