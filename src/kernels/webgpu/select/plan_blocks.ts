import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PBSAttentionAttrs} from '../../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {peakWeight} from '../../../attention/sampled_estimate.js';
import type {BlockPlan} from '../attend/attend_walk.js';
import {keptMass} from './kept_mass.js';
import {permute} from '../permute/permute.js';
import {withScratch} from '../runtime/program.js';
import {sampledMass, sampledMassShape} from './sampled_mass.js';
import {SampledScoresProgram} from './sampled_scores.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';

/** The first three stages, and on request what they kept. The caller frees the plan. */
export function planBlocks(
  op: string,
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  geometry: BlockGeometry,
  attrs: PBSAttentionAttrs,
  keyLengths?: TensorInfo,
  withMass = false,
): BlockPlan & {keptMass?: TensorInfo} {
  const {scale, causal, estimate} = attrs;
  return withScratch(backend, (scratch, keep) => {
    const {keyScores, keyIndices} = permute(op, backend, query, key, geometry, scale, causal, attrs, keyLengths);
    keep(keyIndices);
    if (keyScores) {
      scratch(keyScores);
    }
    let scores: TensorInfo;
    let masses: () => TensorInfo;
    if (estimate === 'sampled') {
      const mass = scratch(sampledMass(op, backend, query, key, keyIndices, geometry, scale, causal, keyLengths));
      const weighted = (weight: number) => scratch(new SampledScoresProgram(mass, geometry, weight).run(backend));
      scores = weighted(peakWeight);
      masses = () => weighted(0);
    } else {
      scores = scratch(scoreBlocks(backend, query, key, keyIndices, geometry, scale, causal, keyLengths));
      masses = () => scores;
    }
    const blockLists = keep(selectBlocks(backend, scores, keyIndices, geometry, causal, attrs));
    const plan = {keyIndices, blockLists};
    return withMass ? {...plan, keptMass: keptMass(backend, masses(), blockLists, estimate)} : plan;
  });
}

/**
 * Shapes of the tensors that grow fastest between the stages.
 *
 * @param estimate by which a plan is made; none where it is given.
 */
export function planShapes(
  geometry: BlockGeometry,
  estimate?: PBSAttentionAttrs['estimate'],
): Record<string, number[]> {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  return {
    'key order': [batch, heads, keyLength],
    'block lists': [batch, heads, queryBlocks, keyBlocks + 1],
    ...(estimate === 'sampled' && {'sampled mass': sampledMassShape(geometry)}),
  };
}
