import type {PBSAttentionAttrs} from '../../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {permute} from '../permute/permute.js';
import {sampledMass, sampledScores} from './sampled_mass.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';
import type {BlockPlan} from '../attend/visible_scores.js';

/** The first three stages, and the mean mass of each block that they expected. */
export function planBlocks(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
  keyLengths?: Int32Array,
): BlockPlan & {masses: Float64Array} {
  const {scale, causal, estimate} = attrs;
  const {keyIndices} = permute(query, key, geometry, scale, causal, attrs, keyLengths);
  let scores: Float64Array;
  let masses: Float64Array;
  if (estimate === 'sampled') {
    const mass = sampledMass(query, key, keyIndices, geometry, scale, causal, keyLengths);
    scores = sampledScores(mass);
    masses = mass.means;
  } else {
    scores = masses = scoreBlocks(query, key, keyIndices, geometry, scale, causal, keyLengths);
  }
  return {keyIndices, blockLists: selectBlocks(scores, keyIndices, geometry, causal, attrs), masses};
}
