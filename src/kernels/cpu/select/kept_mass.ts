import type {AttentionCall, PlanRule} from '../../../attention/attention_call.js';

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
    let total = 0;
    for (let i = 0; i < keyBlocks; ++i) {
      total += masses[row * keyBlocks + i];
    }
    let kept = 0;
    const list = row * (keyBlocks + 1);
    for (let entry = 1; entry <= blockLists[list]; ++entry) {
      kept += masses[row * keyBlocks + blockLists[list + entry]];
    }
    const share = total > 0 ? kept / total : 1;
    keptMasses[row] = estimate === 'sampled' ? Math.max(0, 1 - (total - kept)) : share;
  }
  return keptMasses;
}
