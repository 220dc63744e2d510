import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {PlanRule} from '../../../attention/attention_call.js';
import type {KeyOrder} from '../../../attention/stage_set.js';
import {withScratch} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {proxyKeyScores} from './proxy_key_scores.js';
import {segmentKeyScores} from './segment_key_scores.js';
import {KeysInPlaceProgram, SortKeysProgram} from './sort_keys.js';

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by
 * index. Keys that are padding score 0, so that they stand last. Scores are those of `segmentKeyScores`, or with the
 * pooled estimate (paper section 3.2) the mean attention of the last query rows, the proxy rows, without a causal mask; then
 * a batch entry without proxy rows or without keys keeps its order, and `causal` counts with key lengths alone: it says which
 * rows are padding.
 */
export function permute(
  call: WebGPUCall,
  {permute: sort, estimate}: Pick<PlanRule, 'permute' | 'estimate'>,
): KeyOrder<TensorInfo> {
  const {backend, geometry} = call;
  if (!sort) {
    return {keyIndices: new KeysInPlaceProgram(geometry).run(backend)};
  }
  return withScratch(backend, (_, keep) => {
    const keyScores = keep(estimate === 'sampled' ? segmentKeyScores(call) : proxyKeyScores(call));
    return {keyScores, keyIndices: new SortKeysProgram(keyScores, geometry).run(backend)};
  });
}
