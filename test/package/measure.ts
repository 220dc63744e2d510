import type * as core from '@tensorflow/tfjs-core';
import type * as entry from '../../src/index';

type Shape = [number, number, number, number];
const shape: Shape = [1, 2, 64, 8];
const sparse = {blockSize: 8, segmentSize: 16, threshold: 0.5, auto: false};

/** What a caller of the package's functions sees on one backend. */
export interface Measured {
  active: string;
  exact: number[];
  composed: number[];
  sparse: number[];
  chainedExact: number[];
  chainedSparse: number[];
  density: number;
}

/**
 * Runs the functions on each backend, on data small enough for software adapters. The projects under test get this as a
 * script.
 *
 * @param tf tfjs-core.
 * @param attention the package's exports; the same object as `tf` where a script tag extended it.
 */
export async function measure(
  tf: typeof core,
  attention: typeof entry,
  backends: readonly string[],
): Promise<Record<string, Measured>> {
  const results: Record<string, Measured> = {};
  for (const backend of backends) {
    if (!(await tf.setBackend(backend))) {
      throw new Error(`no backend ${backend}`);
    }
    const [q, k, v] = [1.7, 2.3, 3.1].map((seed) => tf.tensor4d(numbers(seed), shape));
    const exact = attention.flashAttention(q, k, v, {causal: false});
    const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(shape[3]));
    const composed = tf.matMul(tf.softmax(scores), v);
    const plan = attention.pbsAttentionPlan(q, k, sparse);
    results[backend] = {
      active: tf.getBackend(),
      exact: await values(exact),
      composed: await values(composed),
      sparse: await values(attention.pbsAttention(q, k, v, sparse)),
      chainedExact: await values(q.flashAttention(k, v, {causal: false})),
      chainedSparse: await values(q.pbsAttention(k, v, sparse)),
      density: await attention.pbsAttentionDensity(plan, sparse),
    };
  }
  return results;
}

/** In [-2, 2], the same everywhere. */
function numbers(seed: number): Float32Array {
  const size = shape.reduce((x, y) => x * y);
  return Float32Array.from({length: size}, (_, i) => 2 * Math.sin((i + 1) * seed));
}

async function values(x: core.Tensor): Promise<number[]> {
  return Array.from(await x.data());
}
