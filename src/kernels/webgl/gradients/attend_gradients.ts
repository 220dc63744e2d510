import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import {AttendScoresProgram, AttendStatisticsProgram} from '../attend/attend_passes.js';
import type {HiddenKeys} from '../attend/attend.js';
import type {AttendWalk, BlockPlan} from '../attend/attend_walk.js';
import {blockMask} from '../select/block_mask.js';
import type {AttentionContext} from '../runtime/context.js';
import type {QueryPlan} from './gradient_key.js';
import {GradientKeyProgram, KeyWalkScoresProgram} from './gradient_key.js';
import {GradientQueryProgram, GradientRowsProgram} from './gradient_query.js';
import {GradientStatisticsProgram} from './gradient_statistics.js';
import {headRanges, headWalks, transposed} from './gradient_walk.js';
import {PermuteRowsProgram} from '../permute/permute_rows.js';
import type {AttentionProgram} from '../runtime/program.js';
import {withScratch} from '../runtime/program.js';
import {QueryListsProgram} from './query_lists.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {KeyPlacesProgram, SumHeadsProgram} from './sum_heads.js';
import {newTensor, storeRows} from '../runtime/tensor_rows.js';

/** Rows of the inputs of the gradients: of `sumColumns` values, zeros where a row has ended. */
export type GradientRows = Record<'query' | 'key' | 'value' | 'output' | 'dy', RowTexture>;

/** A factor with which products are not scaled: scores are in units of log2. */
const unscaled = Math.LN2;

/**
 * Gradients of the attend stage by query, key and value: gradient statistics → gradient query, gradient key, one file a
 * stage. Each draws the scores again, by rounds as the attend stage does; memory grows with the length as that of the inputs
 * does.
 */
export function attendGradients(
  context: AttentionContext,
  rows: GradientRows,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
  hidden: HiddenKeys = {},
): TensorInfo[] {
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim, valueDim} = geometry;
  return withScratch(context, (scratch) => {
    const made: TensorInfo[] = [];
    try {
      const statistics = scratch(gradientStatistics(context, rows, geometry, scale, causal, plan, hidden));
      const gradients = {
        query: scratch(gradientQuery(context, rows, statistics, geometry, scale, causal, plan, hidden)),
        ...gradientKey(context, rows, statistics, geometry, scale, causal, scratch, plan, hidden),
      };
      const queryShape = [batch, heads, queryLength, headDim];
      made.push(storeRows(context, gradients.query, {inner: headDim, piece: headDim}, queryShape, 'float32'));
      const places = plan && scratch(new KeyPlacesProgram(plan.keyIndices, geometry, context.drawBuffers).run(context));
      for (const [gradient, dim] of [
        [gradients.key, headDim],
        [gradients.value, valueDim],
      ] as const) {
        const sum = new SumHeadsProgram(gradient, geometry, dim, places);
        const draw = (target: Parameters<typeof sum.drawTensor>[1]) => sum.drawTensor(context, target);
        made.push(newTensor(context, [batch, keyValueHeads, keyLength, dim], 'float32', draw));
      }
      return made;
    } catch (error) {
      made.forEach((tensor) => context.backend.disposeIntermediateTensorInfo(tensor));
      throw error;
    }
  });
}

/** Draws a program into a texture of its own, made when the first one needs it. */
function drawInto<Variant extends object>(
  context: AttentionContext,
  target: RowTexture | undefined,
  program: AttentionProgram<Variant>,
  take: Take<RowTexture>,
): RowTexture {
  const texture = target ?? take(program.allocate(context));
  program.draw(context, texture);
  return texture;
}

/** Calls `walk` for all walks over keys, with keys and values in the order of the plan. */
function forEachWalk(
  context: AttentionContext,
  {key, value}: GradientRows,
  geometry: BlockGeometry,
  causal: boolean,
  plan: BlockPlan | undefined,
  keyLengths: RowTexture | undefined,
  body: (walk: AttendWalk, keys: RowTexture, values: RowTexture, scratch: Take<RowTexture>) => void,
): void {
  for (const range of headRanges(context, geometry)) {
    withScratch(context, (scratch) => {
      const inOrder = (rows: RowTexture) =>
        plan ? scratch(permuted(context, rows, geometry, range, plan, keyLengths)) : rows;
      const [keys, values] = [inOrder(key), inOrder(value)];
      for (const walk of headWalks(context, geometry, range, causal, plan !== undefined, keyLengths)) {
        withScratch(context, (rangeScratch) => body(walk, keys, values, rangeScratch));
      }
    });
  }
}

function permuted(
  context: AttentionContext,
  rows: RowTexture,
  geometry: BlockGeometry,
  {firstHead, heads}: {firstHead: number; heads: number},
  {keyIndices}: Pick<BlockPlan, 'keyIndices'>,
  keyLengths?: RowTexture,
): RowTexture {
  const {drawBuffers} = context;
  return new PermuteRowsProgram(rows, keyIndices, geometry, firstHead, heads, drawBuffers, keyLengths).run(context);
}

function gradientStatistics(
  context: AttentionContext,
  rows: GradientRows,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
  {keyLengths, mask}: HiddenKeys = {},
): RowTexture {
  return withScratch(context, (_, keep) => {
    let target: RowTexture | undefined;
    forEachWalk(context, rows, geometry, causal, plan, keyLengths, (walk, keys, _values, scratch) => {
      const sums: RowTexture[] = [];
      let scores: RowTexture | undefined;
      for (let round = 0; round * walk.slotsPerRound < geometry.keyBlocks; ++round) {
        const firstSlot = round * walk.slotsPerRound;
        const scorePass = new AttendScoresProgram(walk, firstSlot, rows.query, keys, scale, plan, mask);
        scores = drawInto(context, scores, scorePass, scratch);
        const before = sums[(round + 1) % 2] as RowTexture | undefined;
        const statisticsPass = new AttendStatisticsProgram(
          walk,
          firstSlot,
          scores,
          before && {statistics: before},
          plan,
        );
        sums[round % 2] = drawInto(context, sums[round % 2], statisticsPass, scratch);
        context.gl.flush();
      }
      const statisticsPass = new GradientStatisticsProgram(walk, sums, rows.output, rows.dy, plan);
      target = drawInto(context, target, statisticsPass, keep);
    });
    return target!;
  });
}

/** Rows `[batch * heads * queryLength]`. */
function gradientQuery(
  context: AttentionContext,
  rows: GradientRows,
  statistics: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
  {keyLengths, mask}: HiddenKeys = {},
): RowTexture {
  return withScratch(context, (_, keep) => {
    let target: RowTexture | undefined;
    forEachWalk(context, rows, geometry, causal, plan, keyLengths, (walk, keys, values, scratch) => {
      const valueWalk = {...walk, geometry: {...geometry, headDim: geometry.valueDim}};
      const sums: RowTexture[] = [];
      let [scores, products]: Array<RowTexture | undefined> = [];
      let rounds = 0;
      for (; rounds * walk.slotsPerRound < geometry.keyBlocks; ++rounds) {
        const slot = rounds * walk.slotsPerRound;
        const scorePass = new AttendScoresProgram(walk, slot, rows.query, keys, scale, plan, mask);
        scores = drawInto(context, scores, scorePass, scratch);
        const productPass = new AttendScoresProgram(valueWalk, slot, rows.dy, values, unscaled, plan);
        products = drawInto(context, products, productPass, scratch);
        const before = sums[(rounds + 1) % 2] as RowTexture | undefined;
        const sumPass = new GradientQueryProgram(walk, slot, scores, products, statistics, keys, before, plan);
        sums[rounds % 2] = drawInto(context, sums[rounds % 2], sumPass, scratch);
        context.gl.flush();
      }
      const rowsPass = new GradientRowsProgram(walk, sums[(rounds - 1) % 2], geometry.headDim, scale);
      target = drawInto(context, target, rowsPass, keep);
    });
    return target!;
  });
}

/** Rows `[batch * heads * keyLength]`, in the order of the plan. The caller gives them back through `take`. */
function gradientKey(
  context: AttentionContext,
  {query, key, value, dy}: GradientRows,
  statistics: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  take: Take<RowTexture>,
  plan?: BlockPlan,
  {keyLengths, mask}: HiddenKeys = {},
): Record<'key' | 'value', RowTexture> {
  const {queryBlocks, keyBlocks, headDim, valueDim} = geometry;
  const keyGeometry = transposed(geometry);
  return withScratch(context, (scratch) => {
    const queryPlan: QueryPlan | undefined = plan && {
      keyIndices: plan.keyIndices,
      queryLists: scratch(
        new QueryListsProgram(scratch(blockMask(context, plan.blockLists)), queryBlocks, keyBlocks).run(context),
      ),
    };
    const targets: Partial<Record<'key' | 'value', RowTexture>> = {};
    for (const range of headRanges(context, keyGeometry)) {
      withScratch(context, (headScratch) => {
        const inOrder = (rows: RowTexture) =>
          plan ? headScratch(permuted(context, rows, geometry, range, plan, keyLengths)) : rows;
        const [keys, values] = [inOrder(key), inOrder(value)];
        for (const walk of headWalks(context, keyGeometry, range, causal, plan !== undefined, keyLengths)) {
          withScratch(context, (rangeScratch) => {
            const sums: Record<'key' | 'value', RowTexture[]> = {key: [], value: []};
            let [scores, products]: Array<RowTexture | undefined> = [];
            let rounds = 0;
            for (; rounds * walk.slotsPerRound < queryBlocks; ++rounds) {
              const slot = rounds * walk.slotsPerRound;
              const scorePass = new KeyWalkScoresProgram(walk, slot, keys, query, headDim, scale, queryPlan, mask);
              scores = drawInto(context, scores, scorePass, rangeScratch);
              const productPass = new KeyWalkScoresProgram(walk, slot, values, dy, valueDim, unscaled, queryPlan);
              products = drawInto(context, products, productPass, rangeScratch);
              for (const of of ['key', 'value'] as const) {
                const before = sums[of][(rounds + 1) % 2] as RowTexture | undefined;
                const sumPass = new GradientKeyProgram(
                  walk,
                  slot,
                  of,
                  scores,
                  products,
                  statistics,
                  of === 'key' ? query : dy,
                  before,
                  queryPlan,
                );
                sums[of][rounds % 2] = drawInto(context, sums[of][rounds % 2], sumPass, rangeScratch);
              }
              context.gl.flush();
            }
            for (const of of ['key', 'value'] as const) {
              const [dim, factor] = of === 'key' ? [headDim, scale] : [valueDim, 1];
              const rowsPass = new GradientRowsProgram(walk, sums[of][(rounds - 1) % 2], dim, factor);
              targets[of] = drawInto(context, targets[of], rowsPass, take);
            }
          });
        }
      });
    }
    return targets as Record<'key' | 'value', RowTexture>;
  });
}
