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
import {windowOf} from '../../runner/llama/sliding_window';

type Precision = 'float32' | 'float16';

type Heads = Pick<LlamaConfig, 'heads' | 'keyValueHeads' | 'headDim'>;
type Config = Heads & Pick<LlamaConfig, 'layers' | 'slidingWindow'>;

/**
 * Why the library would read the last `rows` of `length` tokens exactly, by its own estimate for the backend in use; nothing where it would
 * leave blocks out.
 *
 * @param window of the layer. Default: none.
 */
export function whyReadExactly(
  {heads, keyValueHeads, headDim}: Heads,
  rows: number,
  length: number,
  precision: Precision,
  window?: number,
): ExactReason | undefined {
  const info = (shape: number[]): tf.TensorInfo => ({dataId: {}, shape, dtype: 'float32'});
  const options = {...defaultOptions, window};
  const geometry = blockGeometry(info([1, heads, rows, headDim]), info([1, keyValueHeads, length, headDim]), options);
  return whyExact(geometry, options, backendCosts(geometry, precision));
}

/**
 * The length from which on the library reads every prompt sparsely in some layer, up to `most` tokens; nothing where it reads that one exactly.
 * Below it are some that it reads so, too: a block that is begun costs as a whole one.
 */
export function sparseFrom(config: Config, most: number, precision: Precision): number | undefined {
  const windows = new Set<number | undefined>();
  for (let layer = 0; layer < config.layers; ++layer) windows.add(windowOf(config, layer));
  // Layers that see all gain the most.
  const window = windows.has(undefined) ? undefined : config.slidingWindow?.tokens;
  let length = most;
  while (length > 0 && whyReadExactly(config, length, length, precision, window) === undefined) --length;
  return length === most ? undefined : length + 1;
}

/** The attention of one prefill as `pbsAttention` computes it by default, of which the blocks that it kept can be told afterwards. */
export class SparseReading {
  private readonly plans: PBSAttentionPlan[] = [];
  private lastReason?: ExactReason;

  /** @param options `auto` false: blocks are chosen where that does not pay, too. */
  constructor(
    private readonly heads: Heads,
    private readonly options: {precision: Precision; auto: boolean},
  ) {}

  /** As `PrefillRequest.attend`. */
  attend = (
    _layer: number,
    query: tf.Tensor4D,
    key: tf.Tensor4D,
    value: tf.Tensor4D,
    window: number | undefined,
  ): tf.Tensor4D => {
    const {precision, auto} = this.options;
    const reason = auto ? whyReadExactly(this.heads, query.shape[2], key.shape[2], precision, window) : undefined;
    if (reason !== undefined) {
      this.lastReason = reason;
      return flashAttention(query, key, value, {precision, window});
    }
    // The plan that the call would make and throw away: kept, it costs its conversion to a mask, and no second choice of blocks.
    const plan = pbsAttentionPlan(query, key, {precision, window});
    this.plans.push({...plan, keyIndices: tf.keep(plan.keyIndices), blockMask: tf.keep(plan.blockMask)});
    return pbsAttention(query, key, value, {plan, precision});
  };

  /** Why it was exact, in all layers; nothing where some layer left blocks out. */
  get exactReason(): ExactReason | undefined {
    return this.plans.length === 0 ? this.lastReason : undefined;
  }

  /** Share of the visible blocks that was kept, mean over heads and those layers that left some out; nothing where all of them were read. */
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
