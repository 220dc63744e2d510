import type {PBSAttentionAttrs} from '../../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import type {BlockPlan} from '../attend/attend_walk.js';
import type {AttentionContext} from '../runtime/context.js';
import {keptMass} from './kept_mass.js';
import {permute} from '../permute/permute.js';
import {withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {sampledMass, SampledScoresProgram} from './sampled_mass.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';

/** The first three stages, and on request what they kept. The caller gives the plan's textures back. */
export function planBlocks(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
  keyLengths?: RowTexture,
  withMass = false,
): BlockPlan & {keptMass?: RowTexture} {
  const {scale, causal, estimate} = attrs;
  return withScratch(context, (scratch, keep) => {
    const {keyScores, keyIndices} = permute(context, query, key, geometry, scale, causal, attrs, keyLengths);
    keep(keyIndices);
    if (keyScores) {
      scratch(keyScores);
    }
    const score = estimate === 'sampled' ? sampledMass : scoreBlocks;
    const masses = scratch(score(context, query, key, keyIndices, geometry, scale, causal, keyLengths));
    const scores = estimate === 'sampled' ? scratch(new SampledScoresProgram(masses).run(context)) : masses;
    const plan = {keyIndices, blockLists: keep(selectBlocks(context, scores, keyIndices, geometry, causal, attrs))};
    return withMass ? {...plan, keptMass: keptMass(context, masses, plan.blockLists, estimate)} : plan;
  });
}

/** Hands the textures of a plan to `take`. */
export function takePlan({keyIndices, blockLists}: BlockPlan, take: Take<RowTexture>): void {
  [keyIndices, blockLists].forEach(take);
}
