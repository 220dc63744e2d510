import type {PlanRule} from '../../../attention/attention_call.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {KeyOrder} from '../../../attention/stage_set.js';
import {withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {RowSplit} from '../runtime/tensor_rows.js';
import type {WebGLCall} from '../webgl_call.js';
import {proxyKeyScores} from './proxy_key_scores.js';
import {segmentKeyScores} from './segment_key_scores.js';
import {RankKeysProgram, SortKeysProgram} from './sort_keys.js';

/** How `[batch, heads, permutedLength]` lies in the rows of `keyScores`. */
export const keyScoreSplit = ({permutedLength, segmentSize}: BlockGeometry): RowSplit => ({
  inner: permutedLength,
  piece: segmentSize,
});

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by
 * index. Keys that are padding score 0, so that they stand last. Scores are those of `segmentKeyScores`, or with the
 * pooled estimate (paper section 3.2) those of `proxyKeyScores`; then a batch entry without proxy rows or without keys
 * keeps its order, and `causal` counts with key lengths alone: it says which rows are padding.
 */
export function permute(
  call: WebGLCall,
  {permute: sort, estimate}: Pick<PlanRule, 'permute' | 'estimate'>,
): KeyOrder<RowTexture> {
  const {context} = call;
  if (!sort) {
    return {keyIndices: new SortKeysProgram(call).run(context)};
  }
  return withScratch(context, (scratch, keep) => {
    const keyScores = keep(estimate === 'sampled' ? segmentKeyScores(call) : proxyKeyScores(call));
    const ranks = scratch(new RankKeysProgram(keyScores).run(context));
    return {keyScores, keyIndices: new SortKeysProgram(call, ranks).run(context)};
  });
}
