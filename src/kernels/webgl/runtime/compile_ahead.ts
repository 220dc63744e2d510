import type {AttentionContext} from './context.js';
import {contextOf} from './context.js';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';

/** Between two questions whether programs are compiled, in milliseconds. */
const askEvery = 5;

/**
 * Compiles the programs that `run` would draw by. Nothing of ours is drawn. Where the browser compiles beside this thread (`KHR_parallel_shader_compile`), this
 * waits for it without keeping the thread.
 */
export async function compileAhead(backend: MathBackendWebGL, run: () => void): Promise<void> {
  const context = contextOf(backend);
  const started: NonNullable<AttentionContext['ahead']> = (context.ahead = []);
  try {
    run();
  } finally {
    context.ahead = undefined;
  }
  const {gl} = context;
  const parallel = gl.getExtension('KHR_parallel_shader_compile') as {COMPLETION_STATUS_KHR: number} | null;
  for (const {program, finish} of started) {
    while (parallel && !gl.isContextLost() && !gl.getProgramParameter(program, parallel.COMPLETION_STATUS_KHR)) {
      await new Promise((resolve) => setTimeout(resolve, askEvery));
    }
    finish();
  }
}
