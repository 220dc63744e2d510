import {env} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';

/** tfjs's own flag: programs are compiled, side by side, and not run. */
const compileOnly = 'WEBGPU_ENGINE_COMPILE_ONLY';

/** Pipelines with extensions that are made ahead while a call runs without running anything. */
let ahead: Promise<void>[] | undefined;

/** Takes over a program that is not to be run: whether it did. */
export function isCompiledAhead(compile: () => Promise<void>): boolean {
  ahead?.push(compile());
  return ahead !== undefined;
}

/** Private in tfjs's types: by shader keys; while one is compiled side by side, its promise. */
interface PipelineCache {
  pipelineCache: Record<string, GPUComputePipeline | Promise<GPUComputePipeline>>;
}

/**
 * Makes the pipelines of the programs that `run` would launch, side by side and without keeping this thread. Nothing is launched. tfjs refuses programs whose
 * pipelines are still promises, so that these are taken out of its cache until they are there: what runs meanwhile compiles its own.
 */
export async function compileAhead(backend: WebGPUBackend, run: () => void): Promise<void> {
  const {pipelineCache} = backend as unknown as PipelineCache;
  const compiling: Promise<void>[] = (ahead = []);
  env().set(compileOnly, true);
  try {
    run();
  } finally {
    env().set(compileOnly, false);
    ahead = undefined;
    for (const [key, pipeline] of Object.entries(pipelineCache)) {
      if (pipeline instanceof Promise) {
        delete pipelineCache[key];
        compiling.push(pipeline.then((made) => void (pipelineCache[key] ??= made)));
      }
    }
    // Where `run` threw, nobody waits for them.
    compiling.forEach((pipeline) => pipeline.catch(() => {}));
  }
  await Promise.all(compiling);
}
