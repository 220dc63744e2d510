import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {AttendScoresProgram, AttendStatisticsProgram} from '../attend/attend_passes.js';
import type {WalkCut} from '../attend/each_walk.js';
import {forEachWalk} from '../attend/each_walk.js';
import {withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {newTensor, storeRows, wholeRows} from '../runtime/tensor_rows.js';
import {blockMask} from '../select/block_mask.js';
import type {WebGLCall, WebGLPlan} from '../webgl_call.js';
import type {KeyGradient, KeyWalk} from './gradient_key.js';
import {GradientKeyProgram, KeyWalkScoresProgram} from './gradient_key.js';
import {GradientQueryProgram, GradientRowsProgram} from './gradient_query.js';
import {GradientStatisticsProgram} from './gradient_statistics.js';
import {transposed, weightFactors} from './gradient_walk.js';
import {QueryListsProgram} from './query_lists.js';
import {KeyPlacesProgram, SumHeadsProgram} from './sum_heads.js';

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage. Each draws the scores again, by rounds as the attend stage does; memory grows with the length as that of the inputs
 * does.
 */
export function attendGradients(call: WebGLCall, plan?: WebGLPlan): TensorInfo[] {
  const {context, geometry} = call;
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim} = geometry;
  return withScratch(context, (scratch) => {
    const statistics = scratch(gradientStatistics(call, plan));
    const queryGradient = scratch(gradientQuery(call, statistics, plan));
    const keyGradients = gradientKey(call, statistics, scratch, plan);
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
          keep(sumHeads(keyGradients.key)),
          sumHeads(keyGradients.value),
        ];
      },
    );
  });
}

/** What gradients are cut into walks by: a walk draws scores and products, and both of two sums. */
function gradientCut({geometry}: WebGLCall, plan: WebGLPlan | undefined): WalkCut {
  return {plan, textures: 2, dim: Math.max(geometry.headDim, geometry.valueDim)};
}

function gradientStatistics(call: WebGLCall, plan?: WebGLPlan): RowTexture {
  const {context, geometry} = call;
  return withScratch(context, (_, keep) => {
    let target: RowTexture | undefined;
    forEachWalk(call, gradientCut(call, plan), (walk, scratch) => {
      const sums: RowTexture[] = [];
      let scores: RowTexture | undefined;
      for (let round = 0; round * walk.slotsPerRound < geometry.keyBlocks; ++round) {
        const slot = round * walk.slotsPerRound;
        scores = new AttendScoresProgram(walk, slot).drawInto(context, scores, scratch);
        const sumPass = new AttendStatisticsProgram(walk, slot, {scores, before: sums[(round + 1) % 2]});
        sums[round % 2] = sumPass.drawInto(context, sums[round % 2], scratch);
        context.gl.flush();
      }
      target = new GradientStatisticsProgram(walk, sums).drawInto(context, target, keep);
    });
    return target!;
  });
}

/** Rows `[batch * heads * queryLength]`. */
function gradientQuery(call: WebGLCall, statistics: RowTexture, plan?: WebGLPlan): RowTexture {
  const {context, geometry, scale} = call;
  return withScratch(context, (_, keep) => {
    let target: RowTexture | undefined;
    forEachWalk(call, gradientCut(call, plan), (walk, scratch) => {
      const sums: RowTexture[] = [];
      let [scores, products]: Array<RowTexture | undefined> = [];
      let rounds = 0;
      for (; rounds * walk.slotsPerRound < geometry.keyBlocks; ++rounds) {
        const slot = rounds * walk.slotsPerRound;
        scores = new AttendScoresProgram(walk, slot).drawInto(context, scores, scratch);
        const productPass = new AttendScoresProgram(walk, slot, weightFactors(walk));
        products = productPass.drawInto(context, products, scratch);
        const round = {scores, products, statistics, before: sums[(rounds + 1) % 2]};
        const sumPass = new GradientQueryProgram(walk, slot, round);
        sums[rounds % 2] = sumPass.drawInto(context, sums[rounds % 2], scratch);
        context.gl.flush();
      }
      const rowsPass = new GradientRowsProgram(walk, sums[(rounds - 1) % 2], {dim: geometry.headDim, factor: scale});
      target = rowsPass.drawInto(context, target, keep);
    });
    return target!;
  });
}

/** Rows `[batch * heads * keyLength]`, in the order of the plan. The caller gives them back through `take`. */
function gradientKey(
  call: WebGLCall,
  statistics: RowTexture,
  take: Take<RowTexture>,
  plan?: WebGLPlan,
): Record<KeyGradient, RowTexture> {
  const {context, geometry, scale} = call;
  const parts = [
    {of: 'key', dim: geometry.headDim, factor: scale},
    {of: 'value', dim: geometry.valueDim, factor: 1},
  ] as const;
  const targets: Partial<Record<KeyGradient, RowTexture>> = {};
  withScratch(context, (scratch) => {
    const mask = plan && scratch(blockMask(call, plan.blockLists));
    const queryLists = mask && scratch(new QueryListsProgram(call, mask).run(context));
    const cut = {...gradientCut(call, plan), geometry: transposed(geometry)};
    forEachWalk(call, cut, (attendWalk, walkScratch) => {
      const walk: KeyWalk = {...attendWalk, queryLists};
      const sums: Record<KeyGradient, RowTexture[]> = {key: [], value: []};
      let [scores, products]: Array<RowTexture | undefined> = [];
      let rounds = 0;
      for (; rounds * walk.slotsPerRound < geometry.queryBlocks; ++rounds) {
        const slot = rounds * walk.slotsPerRound;
        scores = new KeyWalkScoresProgram(walk, slot).drawInto(context, scores, walkScratch);
        const productPass = new KeyWalkScoresProgram(walk, slot, weightFactors(walk));
        products = productPass.drawInto(context, products, walkScratch);
        for (const {of} of parts) {
          const round = {of, scores, products, statistics, before: sums[of][(rounds + 1) % 2]};
          const sumPass = new GradientKeyProgram(walk, slot, round);
          sums[of][rounds % 2] = sumPass.drawInto(context, sums[of][rounds % 2], walkScratch);
        }
        context.gl.flush();
      }
      for (const {of, dim, factor} of parts) {
        const rowsPass = new GradientRowsProgram(walk, sums[of][(rounds - 1) % 2], {dim, factor});
        targets[of] = rowsPass.drawInto(context, targets[of], take);
      }
    });
  });
  return targets as Record<KeyGradient, RowTexture>;
}
