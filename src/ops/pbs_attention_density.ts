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
 * A plan does not tell how many rows its last query block has: they are taken to end with the keys, or to fill the block.
 * Both are so but for a chunk with a partial last block and later keys; its last query block can count a segment too much.
 * Key lengths do not count: blocks of padding are visible.
 *
 * @param plan what {@link pbsAttentionPlan} or {@link extendPBSAttentionPlan} returned; it is left undisposed.
 * @param options the options that the plan was made with; `blockSize`, `segmentSize`, `causal` and `queryOffset` count. Unlike
 *     there, `queryOffset` is 0 by default, and needed under a causal mask where there are fewer blocks of queries than of
 *     keys.
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
  const [batch, heads, queryBlocks, keyBlocks] = blockMask.shape;
  const keyLength = keyIndices.shape[2];
  const got = `got a mask [${blockMask.shape}] for ${keyLength} keys`;
  const fits = keyBlocks === Math.ceil(keyLength / blockSize);
  check(fits, op, 'plan', got, `a plan made with blockSize ${blockSize}`);
  const {queryOffset = 0} = options ?? {};
  const isWhole = !causal || options?.queryOffset !== undefined || queryBlocks === keyBlocks;
  check(isWhole, op, 'queryOffset', `got none for a mask [${blockMask.shape}]`, 'the position of the first query row');
  const isPosition = Number.isSafeInteger(queryOffset) && queryOffset >= 0 && queryOffset < keyLength;
  check(
    isPosition,
    op,
    'queryOffset',
    `got ${queryOffset} for ${keyLength} keys`,
    'an integer below the number of keys',
  );
  const queryLength = Math.min(queryBlocks * blockSize, keyLength - queryOffset);
  const grid = {blockSize, segmentSize, queryLength, queryOffset, queryBlocks, keyBlocks};
  let visible = 0;
  for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
    visible += visibleBlocks(grid, causal, queryBlock);
  }
  let selected = 0;
  for (const kept of await blockMask.data()) {
    selected += kept;
  }
  return selected / (batch * heads * visible);
}
