import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {FlashAttentionAttrs, FlashAttentionGradInputs, PBSAttentionGradInputs} from '../attention_kernels.js';
import type {BlockGeometry} from '../block_geometry.js';
import {AttendRemainderProgram, summarizeSkipped} from './attend_remainder.js';
import type {BlockPlan, HiddenKeys} from './attend_walk.js';
import {blockMask} from './block_mask.js';
import {GradientKeyProgram, ownerHeads} from './gradient_key.js';
import {GradientQueryProgram} from './gradient_query.js';
import {
  AddSkippedProgram,
  RemainderKeyProgram,
  RemainderQueryProgram,
  SpreadOverKeysProgram,
} from './gradient_remainder.js';
import {GradientStatisticsProgram} from './gradient_statistics.js';
import {chooseGradientTile} from './gradient_tile.js';
import {withScratch} from './program.js';
import {QueryListsProgram} from './query_lists.js';
import {SumHeadsProgram} from './sum_heads.js';

/**
 * Gradients of the attend stage by query, key and value, in float32: gradient statistics → gradient query, gradient key,
 * one file a stage; with `remainder` blocks that are skipped have gradients as well (`gradient_remainder.ts`). Each computes the
 * scores again (FlashAttention-2, arXiv 2307.08691, section 3.1.2), in tiles; memory grows with the length as that of the inputs
 * does.
 */
export function attendGradients(
  backend: WebGPUBackend,
  {query, key, value, output, dy}: FlashAttentionGradInputs | PBSAttentionGradInputs,
  geometry: BlockGeometry,
  {scale, causal}: FlashAttentionAttrs,
  plan?: BlockPlan,
  hidden: HiddenKeys = {},
  remainder = false,
): TensorInfo[] {
  const {queryLength, keyLength, headDim, blockSize} = geometry;
  const tile = chooseGradientTile(backend, geometry, plan ? blockSize : Math.min(queryLength, keyLength));
  return withScratch(backend, (scratch, keep) => {
    const statisticsProgram = new GradientStatisticsProgram(
      query,
      key,
      output,
      dy,
      geometry,
      tile,
      scale,
      causal,
      plan,
      hidden,
    );
    let statistics = scratch(statisticsProgram.run(backend));
    const {keyLengths} = hidden;
    const skipped =
      plan && remainder
        ? {...plan, ...summarizeSkipped(backend, key, value, plan, geometry, scratch, keyLengths)}
        : undefined;
    if (skipped) {
      const seenProgram = new AttendRemainderProgram({query, ...skipped, keyLengths}, geometry, scale, causal);
      statistics = scratch(new AddSkippedProgram(statistics, scratch(seenProgram.run(backend)), geometry).run(backend));
    }
    const inputs = [query, key, value, dy, statistics, geometry, tile, scale, causal] as const;
    let queryGradient = new GradientQueryProgram(...inputs, plan, hidden).run(backend);
    if (skipped) {
      const rows = {query, dy, statistics, keptGradient: scratch(queryGradient)};
      queryGradient = new RemainderQueryProgram(rows, skipped, geometry, scale, causal).run(backend);
    }
    keep(queryGradient);
    const kept = plan && scratch(blockMask(backend, plan.blockLists));
    const queryPlan = plan &&
      kept && {
        keyIndices: plan.keyIndices,
        queryLists: scratch(new QueryListsProgram(kept).run(backend)),
      };
    let gradients = scratch(new GradientKeyProgram(...inputs, queryPlan, hidden.mask).run(backend));
    if (skipped && kept) {
      const rows = {query, dy, statistics};
      const sums = scratch(new RemainderKeyProgram(rows, {...skipped, kept}, geometry, scale, causal).run(backend));
      gradients = scratch(new SpreadOverKeysProgram(gradients, sums, key, skipped, geometry, keyLengths).run(backend));
    }
    const owners = ownerHeads(geometry, plan !== undefined);
    const firstValue = owners * keyLength * headDim;
    const keyGradient = keep(new SumHeadsProgram(gradients, 0, owners, key.shape).run(backend));
    const valueGradient = new SumHeadsProgram(gradients, firstValue, owners, value.shape).run(backend);
    return [queryGradient, keyGradient, valueGradient];
  });
}

/** Shape of the tensor that grows fastest between the stages. */
export function gradientShapes(geometry: BlockGeometry, sparse: boolean): Record<string, number[]> {
  const {keyLength, headDim, valueDim} = geometry;
  return {'gradients of keys and values': [ownerHeads(geometry, sparse), keyLength, headDim + valueDim]};
}
