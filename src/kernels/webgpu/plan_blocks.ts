import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {PBSAttentionAttrs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import type {Take} from '../scratch.js';
import type {BlockPlan} from './attend_walk.js';
import {keptMass} from './kept_mass.js';
import {permute} from './permute.js';
import {probedScores} from './probed_scores.js';
import {withScratch} from './program.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';
import {SummarizeBlocksProgram} from './summarize_blocks.js';

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
  const {scale, causal, threshold, exactLastBlock, probeRows} = attrs;
  return withScratch(backend, (scratch, keep) => {
    const order = permute(op, backend, query, key, geometry, scale, attrs.permute, causal, keyLengths);
    scratch(order.keyScores);
    keep(order.keyIndices);
    const summaries =
      probeRows > 0
        ? keep(new SummarizeBlocksProgram(key, order.keyIndices, geometry, true, keyLengths).run(backend))
        : undefined;
    const scores = scratch(
      summaries
        ? probedScores(
            op,
            backend,
            query,
            key,
            {...order, summaries},
            geometry,
            scale,
            causal,
            exactLastBlock,
            probeRows,
            keyLengths,
          )
        : scoreBlocks(backend, query, key, order, geometry, scale, causal, exactLastBlock, keyLengths),
    );
    const blockLists = keep(
      selectBlocks(backend, scores, order.keyIndices, geometry, threshold, causal, probeRows > 0),
    );
    const plan = {keyIndices: order.keyIndices, blockLists, summaries};
    return withMass ? {...plan, keptMass: keptMass(backend, scores, blockLists, probeRows > 0)} : plan;
  });
}

/** Hands the tensors of a plan to `take`. */
export function takePlan({keyIndices, blockLists, summaries}: BlockPlan, take: Take<TensorInfo>): void {
  [keyIndices, blockLists, ...(summaries ? [summaries] : [])].forEach(take);
}
