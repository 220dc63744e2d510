import type {Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {concat, logicalAnd, logicalOr, op, pad, slice, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import {blockGeometry, firstVisibleBlock, scoredBlocks, visibleBlocks} from '../attention/block_geometry.js';
import {isKnownPlan, knowPlan, planInputs} from './attention_inputs.js';
import {attentionTensors} from './attention_tensors.js';
import {check, describe, planSettings, queryOffsetOf} from './check_arguments.js';
import type {PBSAttentionOptions, TensorInput} from './options.js';
import type {PBSAttentionPlan} from './results.js';
import {planSizes} from './pbs_attention_plan.js';

/**
 * The plan for the next query rows over a key/value cache that has grown: for decoding, where a plan of its own would cost
 * more than a token's attention. Nothing is scored. Old keys keep their order and new keys follow in theirs; each block of
 * queries keeps
 *
 * - the blocks that the last query block of the old plan kept;
 * - the blocks of the segment that its first row stands in, and of those after it up to its last row;
 * - every block that holds a key which no row of the old plan saw: a new one, or one that a cache with room held already.
 *
 * A plan that was extended can be extended again: its last row carries all of that on.
 *
 * ```js
 * let plan = pbsAttentionPlan(query, key);
 * for (;;) {
 *   // … the next token: `query` of one row, `key` and `value` of the cache with its row added
 *   const next = extendPBSAttentionPlan(plan, query, key);
 *   tf.dispose([plan.keyIndices, plan.blockMask]);
 *   plan = next;
 *   const attended = pbsAttention(query, key, value, {plan});
 * }
 * ```
 *
 * @param plan of {@link pbsAttentionPlan} or of this function, for the same heads; it is left undisposed.
 * @param query float32 `[batch, heads, queryLength, headDim]`, the next rows. Its shape counts, not its values.
 * @param key float32 `[batch, keyValueHeads, keyLength, headDim]`, with the plan's keys first. Its shape counts.
 * @param options `queryOffset`, by default `keyLength - queryLength`, counts; `blockSize`, `keyBlockSize`, `segmentSize`, `causal` and `window` are the
 *     plan's, and needed where it does not say its `sizes`. The others are checked and change nothing. No `keyLengths`, and the
 *     result says none: give the call by it those of the longer cache.
 * @returns `keyIndices`, int32 `[batch, heads, keyLength]`, and `blockMask`, bool `[batch, heads, queryBlocks, keyBlocks]`, both
 *     disposed by the caller; and `sizes`.
 * @throws Error if an argument is not of that form, the plan does not fit the options, or there are fewer keys than in it.
 * @function
 */
export const extendPBSAttentionPlan =
  // op() is typed for functions of one tensor; it also takes one that returns several under names.
  op({extendPBSAttentionPlan_}) as unknown as (
    plan: PBSAttentionPlan,
    query: TensorInput,
    key: TensorInput,
    options?: Omit<PBSAttentionOptions, 'plan' | 'onReport' | 'keyLengths' | 'mask'>,
  ) => PBSAttentionPlan;

function extendPBSAttentionPlan_(
  ...[plan, q, k, options]: Parameters<typeof extendPBSAttentionPlan>
): PBSAttentionPlan {
  const name = 'extendPBSAttentionPlan';
  const {query, key} = attentionTensors(name, q, k);
  const {causal, window, ...sizes} = planSettings(name, options, plan, false, ['queryOffset']);
  const queryOffset = queryOffsetOf(name, {...options, window}, causal, query, key);
  const geometry = blockGeometry(query, key, {...sizes, queryOffset, window});
  const {batch, heads, keyLength, keyBlockSize, queryBlocks, keyBlocks} = geometry;

  const plannedKeys = plan?.keyIndices?.shape?.[2] ?? 0;
  const plannedBlocks = Math.ceil(plannedKeys / keyBlockSize);
  const plannedRows = plan?.blockMask?.shape?.[2] ?? 0;
  planInputs(name, plan, {...geometry, keyLength: plannedKeys, queryBlocks: plannedRows, keyBlocks: plannedBlocks});
  const got = `got one of ${describe(plannedKeys)} keys for a key [${key.shape}]`;
  check(plannedKeys <= keyLength, name, 'plan', got, 'a plan of as many keys or fewer');

  const newKeys = keyLength - plannedKeys;
  const newIndices = Int32Array.from({length: batch * heads * newKeys}, (_, i) => plannedKeys + (i % newKeys));
  const keyIndices =
    newKeys === 0
      ? plan.keyIndices.clone()
      : (concat([plan.keyIndices, tensor3d(newIndices, [batch, heads, newKeys], 'int32')], 2) as Tensor3D);

  // Kept without a choice: from the first block with an unseen key, or of the own segment, up to the last that can be seen.
  const {sizes: old} = plan;
  const seenKeys = causal && old ? Math.min(plannedKeys, old.queryOffset + old.queryLength) : plannedKeys;
  const firstNew = seenKeys === keyLength ? keyBlocks : Math.floor(seenKeys / keyBlockSize);
  const always = new Uint8Array(queryBlocks * keyBlocks);
  const inWindow = new Uint8Array(queryBlocks * keyBlocks);
  for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
    const firstSeen = firstVisibleBlock(geometry, queryBlock);
    const first = Math.max(firstSeen, Math.min(firstNew, scoredBlocks(geometry, causal, queryBlock)));
    const end = visibleBlocks(geometry, causal, queryBlock);
    const start = queryBlock * keyBlocks;
    always.fill(1, start + first, start + Math.max(first, end));
    inWindow.fill(1, start + firstSeen, start + keyBlocks);
  }
  const lastRow = slice(plan.blockMask, [0, 0, plannedRows - 1, 0], [batch, heads, 1, plannedBlocks]);
  const carried = pad(lastRow, [
    [0, 0],
    [0, 0],
    [0, 0],
    [0, keyBlocks - plannedBlocks],
  ]);
  const [kept, seen] = [always, inWindow].map((x) => tensor4d(x, [1, 1, queryBlocks, keyBlocks], 'bool'));
  const blockMask = logicalAnd(logicalOr(carried, kept), seen) as Tensor4D;
  if (isKnownPlan(plan)) knowPlan(keyIndices);
  return {keyIndices, blockMask, sizes: planSizes(geometry, {causal, window})};
}
