import type {PBSAttentionAttrs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import {permute} from './permute.js';
import {probedScores} from './probed_scores.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';
import type {BlockPlan} from './visible_scores.js';

/** The first three stages, and the scores that they chose by. */
export function planBlocks(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
  keyLengths?: Int32Array,
): BlockPlan & {scores: Float64Array} {
  const {scale, causal, threshold, exactLastBlock, probeRows} = attrs;
  const order = permute(query, key, geometry, scale, attrs.permute, causal, keyLengths);
  const scores =
    probeRows > 0
      ? probedScores(query, key, order, geometry, scale, causal, exactLastBlock, probeRows, keyLengths)
      : scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock, keyLengths);
  const lists = selectBlocks(scores, order.keyIndices, geometry, threshold, causal, probeRows > 0);
  return {keyIndices: order.keyIndices, blockLists: lists, scores};
}
