import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {
  FlashAttentionAttrs,
  FlashAttentionGradInputs,
  PBSAttentionGradInputs,
} from '../../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {BlockPlan, HiddenKeys} from '../attend/attend_walk.js';
import {blockMask} from '../select/block_mask.js';
import {GradientKeyProgram, ownerHeads} from './gradient_key.js';
import {GradientQueryProgram} from './gradient_query.js';
import {GradientStatisticsProgram} from './gradient_statistics.js';
import {chooseGradientTile} from './gradient_tile.js';
import {withScratch} from '../runtime/program.js';
import {QueryListsProgram} from './query_lists.js';
import {SumHeadsProgram} from './sum_heads.js';

/**
 * Gradients of the attend stage by query, key and value, in float32: gradient statistics → gradient query, gradient key,
 * one file a stage. Each computes the scores again (FlashAttention-2, arXiv 2307.08691, section 3.1.2), in tiles; memory grows
 * with the length as that of the inputs does.
 */
export function attendGradients(
  backend: WebGPUBackend,
  {query, key, value, output, dy}: FlashAttentionGradInputs | PBSAttentionGradInputs,
  geometry: BlockGeometry,
  {scale, causal}: FlashAttentionAttrs,
  plan?: BlockPlan,
  hidden: HiddenKeys = {},
): TensorInfo[] {
  const {queryLength, keyLength, headDim, blockSize, keyBlockSize} = geometry;
  const tile = chooseGradientTile(
    backend,
    geometry,
    plan ? Math.min(blockSize, keyBlockSize) : Math.min(queryLength, keyLength),
  );
  return withScratch(backend, (scratch, keep) => {
    const statistics = scratch(
      new GradientStatisticsProgram(query, key, output, dy, geometry, tile, scale, causal, plan, hidden).run(backend),
    );
    const inputs = [query, key, value, dy, statistics, geometry, tile, scale, causal] as const;
    const queryGradient = keep(new GradientQueryProgram(...inputs, plan, hidden).run(backend));
    const queryPlan = plan && {
      keyIndices: plan.keyIndices,
      queryLists: scratch(new QueryListsProgram(scratch(blockMask(backend, plan.blockLists))).run(backend)),
    };
    const gradients = scratch(new GradientKeyProgram(...inputs, queryPlan, hidden.mask).run(backend));
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
