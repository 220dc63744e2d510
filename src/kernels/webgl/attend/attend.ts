import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {visibleBlocks} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import type {RunningSums} from './attend_passes.js';
import {
  AttendScoresProgram,
  AttendStatisticsProgram,
  AttendValuesProgram,
  StoreAttentionProgram,
  valueTexels,
} from './attend_passes.js';
import type {AttendWalk, BlockPlan} from './attend_walk.js';
import {groupsPerBlock, partsOf, tilesPerBlock} from './attend_walk.js';
import type {AttentionMask} from '../glsl/attention_mask.js';
import type {AttentionContext} from '../runtime/context.js';
import type {KeptRows} from '../permute/permute_rows.js';
import {PermuteRowsProgram} from '../permute/permute_rows.js';
import {withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {newTensor} from '../runtime/tensor_rows.js';

/** What hides keys besides a causal mask. */
export interface HiddenKeys {
  /** As `loadKeyLengths` gives them. */
  keyLengths?: RowTexture;
  /** For exact attention alone: it stands in the order of keys. */
  mask?: AttentionMask;
}

/**
 * Stage 4, attend: float32 tensor `[batch, heads, queryLength, valueDim]`. Softmax attention of each query row over the keys
 * of the blocks in its list, or, without a plan, over all keys: exact attention. With a causal mask a row sees the keys
 * whose original index is not above its own position; a row that sees nothing gives zeros.
 *
 * Fragments share no memory, so that what one learns of a score is lost to the others unless it is drawn. Hence an online
 * softmax by rounds: all groups of four query rows together take their next few key blocks, draw the scores (each once),
 * then the new maximum and sum of each row, then the new weighted sums of values. The scores of a round are all that is
 * kept of them.
 *
 * With a plan, keys and values are first copied into the permuted order, for as many heads as are worked on at a time, so
 * that fragments side by side find them side by side, as without one. With a plan they may still stand in their tensors, which
 * are then read where the plan keeps blocks, and nowhere else.
 *
 * A group takes part in its first rounds and in none after, so the last round in which it took part says in which of two
 * textures, drawn in turns, its sums stand; nothing is copied for groups that are done.
 */
export function attend(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture | KeptRows,
  value: RowTexture | KeptRows,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
  {keyLengths, mask}: HiddenKeys = {},
): TensorInfo {
  const {batch, heads, queryLength, keyLength, valueDim, queryBlocks, keyBlocks} = geometry;
  const {drawBuffers, scratchTexels, maxTextureSize} = context;
  const groupsAtOnce = groupsInRange(context, geometry);
  const headGroups = queryBlocks * groupsPerBlock(geometry);
  // Copies in permuted order are scratch, too: they bind where there are many more keys than queries.
  const copiedTexels = plan ? keyLength * (Math.ceil(key.columns / 4) + Math.ceil(value.columns / 4)) : 0;
  const headsAtOnce = Math.max(1, Math.floor(Math.min(groupsAtOnce / headGroups, scratchTexels / copiedTexels)));
  const permuteRows = (rows: RowTexture | KeptRows, indices: RowTexture, ...headRange: [number, number]) =>
    new PermuteRowsProgram(rows, indices, geometry, ...headRange, drawBuffers, keyLengths).run(context);
  return newTensor(context, [batch, heads, queryLength, valueDim], 'float32', (target) => {
    for (let firstHead = 0; firstHead < batch * heads; firstHead += headsAtOnce) {
      const walkHeads = Math.min(headsAtOnce, batch * heads - firstHead);
      withScratch(context, (scratch) => {
        const inOrder = (rows: RowTexture | KeptRows) =>
          plan ? scratch(permuteRows(rows, plan.keyIndices, firstHead, walkHeads)) : (rows as RowTexture);
        const keys = inOrder(key);
        const values = inOrder(value);
        for (let firstGroup = 0; firstGroup < walkHeads * headGroups; firstGroup += groupsAtOnce) {
          const endGroup = Math.min(firstGroup + groupsAtOnce, walkHeads * headGroups);
          const blockTiles = tilesPerBlock(geometry, drawBuffers);
          const slotTexels = (endGroup - firstGroup) * blockTiles * drawBuffers;
          // The scores of a round stand in one row a group, and a row in one column of a texture.
          const slotsThatFit = Math.floor(Math.min(scratchTexels / slotTexels, maxTextureSize / blockTiles));
          const slotsPerRound = Math.max(1, Math.min(slotsThatFit, keyBlocks));
          const walk: AttendWalk = {
            geometry,
            causal,
            sparse: plan !== undefined,
            tileKeys: drawBuffers,
            firstHead,
            heads: walkHeads,
            firstGroup,
            endGroup,
            slotsPerRound,
            parts: partsOf(geometry, endGroup - firstGroup, slotsPerRound),
            keyLengths,
          };
          withScratch(context, (rangeScratch) => {
            const sums = attendGroups(context, query, keys, values, walk, scale, rangeScratch, plan, mask);
            new StoreAttentionProgram(walk, sums, plan).drawTensor(context, target);
          });
        }
      });
    }
  });
}

/** Groups whose scores of one block, and whose two textures of sums, fit the scratch textures. */
function groupsInRange({drawBuffers, scratchTexels}: AttentionContext, geometry: BlockGeometry): number {
  const scoreTexels = tilesPerBlock(geometry, drawBuffers) * drawBuffers;
  const sumTexels = 2 * drawBuffers * valueTexels(geometry.valueDim, drawBuffers);
  return Math.max(1, Math.floor(scratchTexels / Math.max(scoreTexels, sumTexels)));
}

/** Runs the rounds; gives both textures of sums, the first of which holds those of the first, third, … round. */
function attendGroups(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  value: RowTexture,
  walk: AttendWalk,
  scale: number,
  scratch: Take<RowTexture>,
  plan?: BlockPlan,
  mask?: AttentionMask,
): RunningSums[] {
  const {geometry, causal, endGroup, slotsPerRound, parts} = walk;
  const slots = visibleBlocks(geometry, causal, blockOf(walk, endGroup - 1));
  const sums: RunningSums[] = [];
  let scores: RowTexture | undefined;
  for (let round = 0; round * slotsPerRound < slots; ++round) {
    const firstSlot = round * slotsPerRound;
    const [first, end] = groupsThatReach(walk, firstSlot);
    const scorePass = new AttendScoresProgram(walk, firstSlot, query, key, scale, plan, mask);
    scores ??= scratch(scorePass.allocate(context));
    scorePass.draw(context, scores, first, end);
    const before = sums[(round + 1) % 2] as RunningSums | undefined;
    const statisticsPass = new AttendStatisticsProgram(walk, firstSlot, scores, before, plan);
    const statistics = sums[round % 2]?.statistics ?? scratch(statisticsPass.allocate(context));
    statisticsPass.draw(context, statistics, first * parts, end * parts);
    const valuesPass = new AttendValuesProgram(walk, firstSlot, scores, statistics, value, before, plan);
    const values = sums[round % 2]?.values ?? scratch(valuesPass.allocate(context));
    valuesPass.draw(context, values, first * parts, end * parts);
    sums[round % 2] = {statistics, values};
    // What a round draws is enough for one piece of work on the GPU.
    context.gl.flush();
  }
  return sums;
}

const blockOf = ({geometry, heads}: AttendWalk, group: number) =>
  Math.floor(group / (groupsPerBlock(geometry) * heads));

/**
 * Groups `[first, end)`, counted from the first of the range, past those whose query block sees none of the slots from `slot`
 * on.
 */
function groupsThatReach(walk: AttendWalk, slot: number): [number, number] {
  const {geometry, causal, heads, firstGroup, endGroup} = walk;
  let block = blockOf(walk, firstGroup);
  while (visibleBlocks(geometry, causal, block) <= slot) {
    ++block;
  }
  const reaching = block * groupsPerBlock(geometry) * heads;
  return [Math.max(reaching - firstGroup, 0), endGroup - firstGroup];
}
