import * as tf from '@tensorflow/tfjs-core';

const FLAG = 'WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE';
/** Rows of all programs of a batch together. */
const ROWS_OF_BATCH = 65_536;
/** The most is tfjs's own: with more, the GPU waits for this thread. */
const [FEWEST, MOST] = [4, 15];

/**
 * Runs work on so many rows a program with smaller batches of WebGPU programs where there are many rows: tfjs uses the buffers of freed
 * tensors again only after a batch, and a batch should not hold the GPU for long.
 */
export async function withSubmitBatch<T>(rows: number, run: () => Promise<T>): Promise<T> {
  if (tf.getBackend() !== 'webgpu') return run();
  const before = tf.env().getNumber(FLAG);
  tf.env().set(FLAG, Math.round(Math.min(MOST, Math.max(FEWEST, ROWS_OF_BATCH / rows))));
  try {
    return await run();
  } finally {
    tf.env().set(FLAG, before);
  }
}
