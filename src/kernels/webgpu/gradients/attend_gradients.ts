import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {withScratch} from '../runtime/program.js';
import {blockMask} from '../select/block_mask.js';
import type {WebGPUGradientCall, WebGPUPlan} from '../webgpu_call.js';
import {GradientKeyProgram, ownerHeads} from './gradient_key.js';
import {GradientQueryProgram} from './gradient_query.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {GradientStatisticsProgram, statisticsValues} from './gradient_statistics.js';
import {chooseGradientTile} from './gradient_tile.js';
import {JoinedPlanProgram} from './joined_plan.js';
import {QueryListsProgram} from './query_lists.js';
import {SumHeadsProgram} from './sum_heads.js';

/**
 * Gradients of the attend stage by query, key and value, in float32: gradient statistics → gradient query, gradient key,
 * one file a stage. Each computes the scores again (FlashAttention-2, arXiv 2307.08691, section 3.1.2), in tiles; memory grows
 * with the length as that of the inputs does.
 */
export function attendGradients(call: WebGPUGradientCall, plan?: WebGPUPlan): TensorInfo[] {
  const {backend, key, value, geometry} = call;
  const {queryLength, keyLength, headDim, blockSize, keyBlockSize} = geometry;
  const tile = chooseGradientTile(call, plan ? Math.min(blockSize, keyBlockSize) : Math.min(queryLength, keyLength));
  return withScratch(backend, (scratch, keep) => {
    const joined = ({keyIndices, blockLists: lists}: WebGPUPlan) => ({
      joinedPlan: scratch(new JoinedPlanProgram(keyIndices, lists).run(backend)),
    });
    const keyPlan = plan && joined(plan);
    const statistics = scratch(new GradientStatisticsProgram(call, tile, keyPlan).run(backend));
    const queryGradient = keep(new GradientQueryProgram(call, tile, statistics, keyPlan).run(backend));
    const mask = plan && scratch(blockMask(call, plan.blockLists));
    const queryPlan = plan && joined({...plan, blockLists: scratch(new QueryListsProgram(mask!).run(backend))});
    const gradients = scratch(new GradientKeyProgram(call, tile, statistics, queryPlan).run(backend));
    const owners = ownerHeads(geometry, plan !== undefined);
    const firstValue = owners * keyLength * headDim;
    const keyGradient = keep(new SumHeadsProgram(gradients, {first: 0, owners, shape: key.shape}).run(backend));
    const valueGradient = new SumHeadsProgram(gradients, {first: firstValue, owners, shape: value.shape}).run(backend);
    return [queryGradient, keyGradient, valueGradient];
  });
}

/** Shapes of what is passed between the stages. */
export function gradientShapes(
  geometry: BlockGeometry,
  sparse: boolean,
  form: Pick<ScoreForm, 'slopes'>,
): Record<string, number[]> {
  const {batch, heads, queryLength, keyLength, headDim, valueDim, queryBlocks, keyBlocks} = geometry;
  return {
    'gradients of keys and values': [ownerHeads(geometry, sparse), keyLength, headDim + valueDim],
    'gradient statistics': [batch, heads, queryLength, statisticsValues(form)],
    ...(sparse && {
      'plan by queries': [batch, heads, keyLength + queryBlocks * (keyBlocks + 1)],
      'plan by keys': [batch, heads, keyLength + keyBlocks * (queryBlocks + 1)],
    }),
  };
}
