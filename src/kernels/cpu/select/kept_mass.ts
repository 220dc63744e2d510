import type {AttentionCall, PlanRule} from '../../../attention/attention_call.js';
import {selectedBlocks} from './block_lists.js';

/**
 * What selection kept of the attention that it expected: float32 `[batch, heads, queryBlocks]`. By the pooled estimate, whose
 * masses are shares of what goes to the blocks that compete, the share of the selected ones; 1 where nothing competes. By the
 * sampled one, whose masses are shares of all attention, what the others leave of 1; they can add up to more.
 *
 * @param masses `[batch, heads, queryBlocks, keyBlocks]`, 0 for blocks that do not compete.
 */
export function keptMass(
  {geometry}: Pick<AttentionCall<unknown>, 'geometry'>,
  {estimate}: Pick<PlanRule, 'estimate'>,
  masses: ArrayLike<number>,
  blockLists: Int32Array,
): Float32Array {
  const {batch, heads, queryBlocks, keyBlocks} = geometry;
  const keptMasses = new Float32Array(batch * heads * queryBlocks);
  for (let row = 0; row < keptMasses.length; ++row) {
    const ofRow = Array.from({length: keyBlocks}, (_, i) => masses[row * keyBlocks + i]);
    const total = ofRow.reduce((sum, mass) => sum + mass, 0);
    const kept = selectedBlocks(blockLists, row, keyBlocks).reduce((sum, block) => sum + ofRow[block], 0);
    const share = total > 0 ? kept / total : 1;
    keptMasses[row] = estimate === 'sampled' ? Math.max(0, 1 - (total - kept)) : share;
  }
  return keptMasses;
}
