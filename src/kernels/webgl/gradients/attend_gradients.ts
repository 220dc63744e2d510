import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {attendGroups} from '../attend/attend.js';
import {AttendScoresProgram} from '../attend/attend_passes.js';
import type {WalkCut} from '../attend/each_walk.js';
import {forEachWalk} from '../attend/each_walk.js';
import {withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {newTensor, storeRows, wholeRows} from '../runtime/tensor_rows.js';
import {blockMask} from '../select/block_mask.js';
import type {WebGLCall, WebGLPlan} from '../webgl_call.js';
import {GradientKeyProgram, KeyWalkScoresProgram} from './gradient_key.js';
import {GradientQueryProgram} from './gradient_query.js';
import {GradientStatisticsProgram} from './gradient_statistics.js';
import type {SummedGradient} from './gradient_walk.js';
import {sumGradients, transposed} from './gradient_walk.js';
import {QueryListsProgram} from './query_lists.js';
import {KeyPlacesProgram, SumHeadsProgram} from './sum_heads.js';

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage. Each draws the scores again, by rounds as the attend stage does; memory grows with the length as that of the inputs
 * does.
 */
export function attendGradients(call: WebGLCall, plan?: WebGLPlan): TensorInfo[] {
  const {context, geometry, scale, value} = call;
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim} = geometry;
  return withScratch(context, (scratch) => {
    const statistics = gradientStatistics(call, scratch, plan);
    const gradient: SummedGradient = {
      program: (walk, round) => new GradientQueryProgram(walk, statistics, round),
      dim: headDim,
      factor: scale,
    };
    const cut = {...gradientCut(call, plan), value};
    const [queryGradient] = sumGradients(call, cut, AttendScoresProgram, [gradient], scratch);
    const [keyGradient, valueGradient] = gradientKey(call, statistics, scratch, plan);
    const places = plan && scratch(new KeyPlacesProgram(call, plan.keyIndices).run(context));
    const sumHeads = (rows: RowTexture) => {
      const program = new SumHeadsProgram(call, rows, places);
      const shape = [batch, keyValueHeads, keyLength, rows.columns];
      return newTensor(context, {shape, dtype: 'float32'}, (target) => program.drawTensor(context, target));
    };
    return runWithScratch(
      (tensor: TensorInfo) => context.backend.disposeIntermediateTensorInfo(tensor),
      (_, keep) => {
        const shape = [batch, heads, queryLength, headDim];
        return [
          keep(storeRows(context, queryGradient, wholeRows(headDim), {shape, dtype: 'float32'})),
          keep(sumHeads(keyGradient)),
          sumHeads(valueGradient),
        ];
      },
    );
  });
}

/** What gradients are cut into walks by: a walk draws scores and products, with a soft cap derivatives, and both of two sums. */
function gradientCut({key, geometry, softCap}: WebGLCall, plan?: WebGLPlan): WalkCut {
  return {plan, key, textures: softCap === undefined ? 2 : 3, dim: Math.max(geometry.headDim, geometry.valueDim)};
}

function gradientStatistics(call: WebGLCall, take: Take<RowTexture>, plan?: WebGLPlan): RowTexture {
  let target: RowTexture | undefined;
  forEachWalk(call, gradientCut(call, plan), (walk, scratch) => {
    const sums = attendGroups(walk, scratch).map(({statistics}) => statistics);
    target = new GradientStatisticsProgram(walk, sums).drawInto(call.context, target, take);
  });
  return target!;
}

/** Rows `[batch * heads * keyLength]` of the gradients by key and value, in the order of the plan. */
function gradientKey(call: WebGLCall, statistics: RowTexture, take: Take<RowTexture>, plan?: WebGLPlan): RowTexture[] {
  const {context, geometry, scale, value} = call;
  return withScratch(context, (scratch) => {
    const mask = plan && scratch(blockMask(call, plan.blockLists));
    const queryLists = mask && scratch(new QueryListsProgram(call, mask).run(context));
    const keyPlan = plan && {keyIndices: plan.keyIndices, blockLists: queryLists!};
    const cut = {...gradientCut(call, keyPlan), value, geometry: transposed(geometry)};
    const gradient = (of: 'key' | 'value', dim: number, factor: number): SummedGradient => ({
      program: (walk, round) => new GradientKeyProgram(walk, of, statistics, round),
      dim,
      factor,
    });
    const gradients = [gradient('key', geometry.headDim, scale), gradient('value', geometry.valueDim, 1)];
    return sumGradients(call, cut, KeyWalkScoresProgram, gradients, take);
  });
}
