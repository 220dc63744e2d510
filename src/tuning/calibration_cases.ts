import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, getBackend, keep, randomNormal, reshape, slice, tidy, tile} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../attention/block_geometry.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {countBlocks} from '../attention/cost_model.js';
import {flashAttention} from '../ops/flash_attention.js';
import type {PBSAttentionOptions} from '../ops/options.js';
import {defaultOptions} from '../ops/options.js';
import {pbsAttention} from '../ops/pbs_attention.js';
import {pbsAttentionDensity} from '../ops/pbs_attention_density.js';
import {pbsAttentionPlan} from '../ops/pbs_attention_plan.js';

type Precision = 'float32' | 'float16';

/** What a calibration measures with. */
export interface CalibrationSize {
  heads: number;
  length: number;
  headDim: number;
  /** Smaller than by default where few keys are read, so that choices are left. */
  cut?: Pick<PBSAttentionOptions, 'blockSize' | 'keyBlockSize' | 'segmentSize'>;
}

/** From the slowest devices to the fastest; the last fills a large GPU. */
export const sizes: readonly CalibrationSize[] = [
  {heads: 1, length: 384, headDim: 16, cut: {blockSize: 64, keyBlockSize: 64, segmentSize: 64}},
  {heads: 2, length: 1024, headDim: 64},
  {heads: 8, length: 2048, headDim: 64},
  {heads: 8, length: 4096, headDim: 64},
  {heads: 8, length: 8192, headDim: 64},
  {heads: 8, length: 16_384, headDim: 64},
];

/** A call that next to nothing is computed in. */
export const launchSize: CalibrationSize = {
  heads: 1,
  length: 64,
  headDim: 16,
  cut: {blockSize: 32, keyBlockSize: 32, segmentSize: 32},
};

/** A call of exact attention should not take longer, in milliseconds. */
export const longestCall = 12;

/**
 * The largest size on which exact attention is not expected to take too long.
 *
 * @param launch milliseconds of a call that computes next to nothing: what a size takes beside that is its work.
 * @param timeOf milliseconds of a call.
 */
export async function largestSize(
  launch: number,
  timeOf: (size: CalibrationSize) => Promise<number>,
): Promise<CalibrationSize> {
  const work = ({heads, length, headDim}: CalibrationSize) => heads * length ** 2 * headDim;
  let chosen = sizes[0];
  for (const next of sizes.slice(1)) {
    const ms = await timeOf(chosen);
    const expected = launch + (Math.max(0, ms - launch) * work(next)) / work(chosen);
    if (!(ms > 0 && expected <= longestCall)) break;
    chosen = next;
  }
  return chosen;
}

/** Thresholds of the sparse calls: the fewest blocks, and of random data most of them. */
export const thresholds = {few: 0, many: 0.97};

/** Divides all lengths. */
const repeatedRows = 64;

/** Query, key and value of a size, and the calls that are timed on them. */
export class CalibrationInputs {
  private readonly inputs: [Tensor4D, Tensor4D, Tensor4D];

  constructor(readonly size: CalibrationSize) {
    const {heads, length, headDim} = size;
    // The same rows again and again: millions of random numbers would take longer than what is measured.
    const input = (seed: number) =>
      tidy(() => {
        const rows = randomNormal([1, 1, repeatedRows, headDim], 0, 1, 'float32', seed);
        return keep(tile(rows, [1, heads, length / repeatedRows, 1])) as Tensor4D;
      });
    this.inputs = [input(1), input(2), input(3)];
  }

  get geometry(): BlockGeometry {
    return blockGeometry(this.inputs[0], this.inputs[1], {...defaultOptions, ...this.size.cut});
  }

  exact(precision: Precision = 'float32'): Tensor4D {
    return flashAttention(...this.inputs, {precision});
  }

  sparse(threshold: number, precision: Precision = 'float32'): Tensor4D {
    return pbsAttention(...this.inputs, {...this.options(threshold), precision});
  }

  /** The blocks of a head that a threshold keeps, mean over heads. */
  async kept(threshold: number): Promise<number> {
    const [query, key] = this.inputs;
    const plan = pbsAttentionPlan(query, key, this.options(threshold));
    try {
      return (await pbsAttentionDensity(plan)) * countBlocks(this.geometry, true).visible;
    } finally {
      dispose(plan as unknown as {[name: string]: Tensor});
    }
  }

  dispose(): void {
    dispose(this.inputs);
  }

  private options(threshold: number): PBSAttentionOptions {
    return {threshold, ...this.size.cut, auto: false};
  }
}

/** Waits until the device has computed a tensor. */
export async function computed(x: Tensor): Promise<void> {
  const one = tidy(() => slice(reshape(x, [-1]), 0, 1));
  try {
    // tfjs asks a WebGL context every few milliseconds only; one value is soon read at once.
    await (getBackend() === 'webgl' ? one.dataSync() : one.data());
  } finally {
    one.dispose();
  }
}
