import {backend, getBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {attentionContext} from './webgl/runtime/context.js';
import {compileAhead as compileOnWebGL} from './webgl/runtime/compile_ahead.js';
import {compileAhead as compileOnWebGPU} from './webgpu/runtime/compile_ahead.js';

/** Compiles what `run`, which is not asynchronous, would run on the active backend; runs nothing of it. The CPU has nothing to compile. */
export async function compileAhead(op: string, run: () => unknown): Promise<void> {
  switch (getBackend()) {
    case 'webgpu':
      await compileOnWebGPU(backend() as WebGPUBackend, run);
      break;
    case 'webgl':
      attentionContext(op, backend() as MathBackendWebGL);
      await compileOnWebGL(backend() as MathBackendWebGL, run);
  }
}
