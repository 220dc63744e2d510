import type {PBSAttentionAttrs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import type {Take} from '../scratch.js';
import type {BlockPlan} from './attend_walk.js';
import type {AttentionContext} from './context.js';
import {keptMass} from './kept_mass.js';
import {permute} from './permute.js';
import {probedScores} from './probed_scores.js';
import {withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {scoreBlocks} from './score_blocks.js';
import {selectBlocks} from './select_blocks.js';
import {SummarizeBlocksProgram} from './summarize_blocks.js';

/** The first three stages, and on request what they kept. The caller gives the plan's textures back. */
export function planBlocks(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  geometry: BlockGeometry,
  {scale, causal, threshold, exactLastBlock, permute: sort, probeRows}: PBSAttentionAttrs,
  keyLengths?: RowTexture,
  withMass = false,
): BlockPlan & {keptMass?: RowTexture} {
  return withScratch(context, (scratch, keep) => {
    const order = permute(context, query, key, geometry, scale, sort, causal, keyLengths);
    scratch(order.keyScores);
    keep(order.keyIndices);
    const summaries =
      probeRows > 0
        ? keep(new SummarizeBlocksProgram(key, order.keyIndices, geometry, true, keyLengths).run(context))
        : undefined;
    const scores = scratch(
      summaries
        ? probedScores(
            context,
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
        : scoreBlocks(context, query, key, order, geometry, scale, causal, exactLastBlock, keyLengths),
    );
    const blockLists = keep(
      selectBlocks(context, scores, order.keyIndices, geometry, threshold, causal, probeRows > 0),
    );
    const plan = {keyIndices: order.keyIndices, blockLists, summaries};
    return withMass ? {...plan, keptMass: keptMass(context, scores, blockLists, probeRows > 0)} : plan;
  });
}

/** Hands the textures of a plan to `take`. */
export function takePlan({keyIndices, blockLists, summaries}: BlockPlan, take: Take<RowTexture>): void {
  [keyIndices, blockLists, ...(summaries ? [summaries] : [])].forEach(take);
}
