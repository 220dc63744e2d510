import {Tensor} from '@tensorflow/tfjs-core';
import {firstVisibleBlock, visibleBlocks} from '../attention/block_geometry.js';
import {check, describe, planSettings} from './check_arguments.js';
import type {PBSAttentionOptions} from './options.js';
import type {PBSAttentionPlan} from './results.js';

/**
 * Share of the blocks that a plan keeps: selected blocks over visible blocks (by `causal` and `window`), over all heads and query blocks.
 * A query block's own segment counts on both sides. 1 is exact attention.
 *
 * ```js
 * const plan = pbsAttentionPlan(query, key, {threshold: 0.9});
 * const density = await pbsAttentionDensity(plan); // 0.21: a fifth of the blocks is computed
 * ```
 *
 * Key lengths do not count: blocks of padding are visible.
 *
 * @param plan what {@link pbsAttentionPlan} or {@link extendPBSAttentionPlan} returned; it is left undisposed.
 * @param options for a plan that does not say its `sizes`: `blockSize`, `keyBlockSize`, `segmentSize`, `causal` and `queryOffset` that it was
 *     made with. Unlike there, `queryOffset` is 0 by default, and needed under a causal mask where there are fewer queries than
 *     keys; and the rows of the last query block are taken to end with the keys or to fill the block.
 * @returns a number above 0 and at most 1. The mask is read back from the backend, hence the promise.
 * @throws Error (rejects) if the plan does not fit the options.
 */
export async function pbsAttentionDensity(plan: PBSAttentionPlan, options?: PBSAttentionOptions): Promise<number> {
  const op = 'pbsAttentionDensity';
  const isPlan = plan?.keyIndices instanceof Tensor && plan.blockMask instanceof Tensor;
  check(isPlan, op, 'plan', `got ${describe(plan)}`, 'what pbsAttentionPlan returned');
  check(!plan.blockMask.isDisposed, op, 'plan', 'got a disposed one', 'one that is not disposed');
  const {causal, queryOffset: given, ...sizes} = planSettings(op, options, plan, true);
  const {blockSize, keyBlockSize} = sizes;
  const {keyIndices, blockMask} = plan;
  const [batch, heads, queryBlocks, keyBlocks] = blockMask.shape;
  const keyLength = keyIndices.shape[2];
  const got = `got a mask [${blockMask.shape}] for ${keyLength} keys`;
  const fits = keyBlocks === Math.ceil(keyLength / keyBlockSize);
  check(fits, op, 'plan', got, `a plan made with keyBlockSize ${keyBlockSize}`);
  const isWhole = !causal || given !== undefined || queryBlocks === Math.ceil(keyLength / blockSize);
  const ofMask = `got none for a mask [${blockMask.shape}]`;
  check(isWhole, op, 'queryOffset', ofMask, 'the position of the first query row');
  const queryOffset = causal ? (given ?? 0) : 0;
  const isPosition = Number.isSafeInteger(queryOffset) && queryOffset >= 0 && queryOffset < keyLength;
  const ofKeys = `got ${describe(queryOffset)} for ${keyLength} keys`;
  check(isPosition, op, 'queryOffset', ofKeys, 'an integer below the number of keys');
  const queryLength = plan.sizes?.queryLength ?? Math.min(queryBlocks * blockSize, keyLength - queryOffset);
  const grid = {...sizes, queryLength, queryOffset, queryBlocks, keyBlocks};
  const mask = await blockMask.data();
  let visible = 0;
  let selected = 0;
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const rowVisible = visibleBlocks(grid, causal, row % queryBlocks);
    const first = Math.min(firstVisibleBlock(grid, row % queryBlocks), rowVisible);
    visible += rowVisible - first;
    // An extended plan can carry blocks that lie after its rows, and nobody attends to them.
    for (let block = first; block < rowVisible; ++block) {
      selected += mask[row * keyBlocks + block];
    }
  }
  return selected / visible;
}
