import * as tf from '@tensorflow/tfjs-core';
import {
  flashAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
  type ExactReason,
  type PBSAttentionPlan,
} from '../../src/index';
import {backendCosts, blockGeometry, defaultOptions, whyExact} from '../../src/internal';
import type {LlamaConfig} from '../../runner/llama/config';

type Precision = 'float32' | 'float16';

type Heads = Pick<LlamaConfig, 'heads' | 'keyValueHeads' | 'headDim'>;

/**
 * Why the library would read the last `rows` of `length` tokens exactly, by its own estimate for the backend in use; nothing where it would
 * leave blocks out.
 */
export function whyReadExactly(
  {heads, keyValueHeads, headDim}: Heads,
  rows: number,
  length: number,
  precision: Precision,
): ExactReason | undefined {
  const info = (shape: number[]): tf.TensorInfo => ({dataId: {}, shape, dtype: 'float32'});
  const geometry = blockGeometry(
    info([1, heads, rows, headDim]),
    info([1, keyValueHeads, length, headDim]),
    defaultOptions,
  );
  return whyExact(geometry, defaultOptions, backendCosts(geometry, precision));
}

/**
 * The length from which on the library reads every prompt sparsely, up to `most` tokens; nothing where it reads that one exactly. Below it are
 * some that it reads so, too: a block that is begun costs as a whole one.
 */
export function sparseFrom(heads: Heads, most: number, precision: Precision): number | undefined {
  let length = most;
  while (length > 0 && whyReadExactly(heads, length, length, precision) === undefined) --length;
  return length === most ? undefined : length + 1;
}

/** The attention of one prefill as `pbsAttention` computes it by default, of which the blocks that it kept can be told afterwards. */
export class SparseReading {
  private readonly plans: PBSAttentionPlan[] = [];
  /** Why it was exact, in all layers. */
  exactReason?: ExactReason;

  /** @param options `auto` false: blocks are chosen where that does not pay, too. */
  constructor(
    private readonly heads: Heads,
    private readonly options: {precision: Precision; auto: boolean},
  ) {}

  /** As `PrefillRequest.attend`. */
  attend = (_layer: number, query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D): tf.Tensor4D => {
    const {precision, auto} = this.options;
    this.exactReason = auto ? whyReadExactly(this.heads, query.shape[2], key.shape[2], precision) : undefined;
    if (this.exactReason !== undefined) return flashAttention(query, key, value, {precision});
    // The plan that the call would make and throw away: kept, it costs its conversion to a mask, and no second choice of blocks.
    const plan = pbsAttentionPlan(query, key, {precision});
    this.plans.push({...plan, keyIndices: tf.keep(plan.keyIndices), blockMask: tf.keep(plan.blockMask)});
    return pbsAttention(query, key, value, {plan, precision});
  };

  /** Share of the visible blocks that was kept, mean over layers and heads; nothing where all of them were read. */
  async density(): Promise<number | undefined> {
    const densities: number[] = [];
    for (const plan of this.plans) densities.push(await pbsAttentionDensity(plan));
    return densities.length === 0 ? undefined : densities.reduce((sum, one) => sum + one, 0) / densities.length;
  }

  dispose(): void {
    for (const {keyIndices, blockMask} of this.plans) tf.dispose([keyIndices, blockMask]);
    this.plans.length = 0;
  }
}
