import {Tensor} from '@tensorflow/tfjs-core';
import {visibleBlocks} from '../kernels/block_geometry.js';
import {blockSizes, check, checkBoolean} from './check_arguments.js';
import type {PBSAttentionOptions} from './options.js';
import {defaultOptions} from './options.js';
import type {PBSAttentionPlan} from './pbs_attention_plan.js';

/**
 * Share of the blocks that a plan keeps: selected blocks over causally visible blocks, over all heads and query blocks.
 * A query block's own segment counts on both sides. 1 is exact attention.
 *
 * ```js
 * const plan = pbsAttentionPlan(query, key, {threshold: 0.9});
 * const density = await pbsAttentionDensity(plan, {threshold: 0.9}); // 0.21: a fifth of the blocks is computed
 * ```
 *
 * @param plan what {@link pbsAttentionPlan} returned; it is left undisposed.
 * @param options the options that the plan was made with; `blockSize`, `segmentSize` and `causal` count.
 * @returns a number above 0 and at most 1. The mask is read back from the backend, hence the promise.
 * @throws Error (rejects) if the plan does not fit the options.
 */
export async function pbsAttentionDensity(plan: PBSAttentionPlan, options?: PBSAttentionOptions): Promise<number> {
  const op = 'pbsAttentionDensity';
  const {blockSize, segmentSize} = blockSizes(op, options);
  const causal = options?.causal ?? defaultOptions.causal;
  checkBoolean(op, 'causal', causal);
  const {keyIndices, blockMask} = plan;
  const isPlan = keyIndices instanceof Tensor && blockMask instanceof Tensor;
  check(isPlan, op, 'plan', 'got another object', 'what pbsAttentionPlan returned');
  const [batch, heads, length] = keyIndices.shape;
  const blocks = Math.ceil(length / blockSize);
  const got = `got a mask [${blockMask.shape}] for ${length} keys`;
  check(blockMask.shape[2] === blocks, op, 'plan', got, `a plan made with blockSize ${blockSize}`);
  let visible = 0;
  for (let queryBlock = 0; queryBlock < blocks; ++queryBlock) {
    visible += visibleBlocks({blockSize, segmentSize, blocks}, causal, queryBlock);
  }
  let selected = 0;
  for (const kept of await blockMask.data()) {
    selected += kept;
  }
  return selected / (batch * heads * visible);
}
