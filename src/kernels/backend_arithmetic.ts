import {backend, getBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {AttentionCall} from '../attention/attention_call.js';
import type {AttentionArithmetic} from './webgpu/attend/arithmetic.js';
import {arithmeticOfCall} from './webgpu/attend/attend.js';

export type {AttentionArithmetic} from './webgpu/attend/arithmetic.js';

/** What the attend stage multiplies with on the active backend, over all keys or, `isSparse`, over the blocks of a plan. */
export function backendArithmetic(
  call: Pick<AttentionCall<unknown>, 'op' | 'geometry' | 'causal' | 'precision'>,
  isSparse: boolean,
): AttentionArithmetic {
  if (getBackend() !== 'webgpu') return 'float32';
  return arithmeticOfCall({...call, backend: backend() as WebGPUBackend}, isSparse);
}
