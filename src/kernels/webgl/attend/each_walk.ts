import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import {sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import type {KeptRows} from '../permute_rows.js';
import {PermuteRowsProgram} from '../permute_rows.js';
import {withScratch} from '../runtime/program.js';
import {headRanges, rangesOf} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall, WebGLPlan} from '../webgl_call.js';
import type {AttendWalk} from './attend_walk.js';
import {groupsPerBlock} from './attend_walk.js';

/** What a call is cut into walks by. */
export interface WalkCut {
  plan?: WebGLPlan;
  /** That of the call, if not another. */
  geometry?: BlockGeometry;
  key: RowTexture | KeptRows;
  /** None where nothing reads it. */
  value?: RowTexture | KeptRows;
  /** Textures of scores, and pairs of textures of sums, that a walk draws. */
  textures: number;
  /** Values a row of the sums. */
  dim: number;
}

/**
 * Runs `body` for all walks of a call, each of as many heads, groups and slots as the scratch textures hold.
 *
 * With a plan, keys and values are first copied into the permuted order, for as many heads as are worked on at a time, so
 * that fragments side by side find them side by side, as without one.
 */
export function forEachWalk(
  call: WebGLCall,
  cut: WalkCut,
  body: (walk: AttendWalk, scratch: Take<RowTexture>) => void,
): void {
  const {context} = call;
  const {drawBuffers, scratchTexels, maxTextureSize} = context;
  const {plan, geometry = call.geometry, key, value, textures, dim} = cut;
  const {queryBlocks, keyBlocks} = geometry;
  const blockTiles = tilesPerBlock(geometry, drawBuffers);
  // Scores of one block, or both textures of sums.
  const groupTexels = textures * drawBuffers * Math.max(blockTiles, 2 * sumTexels(dim, drawBuffers));
  const groupsAtOnce = Math.max(1, Math.floor(scratchTexels / groupTexels));
  const headGroups = queryBlocks * groupsPerBlock(geometry);
  // Copies in permuted order are scratch, too: they bind where there are many more keys than queries.
  const rowTexels = Math.ceil(key.columns / 4) + Math.ceil((value?.columns ?? 0) / 4);
  const copiedTexels = plan ? call.geometry.keyLength * rowTexels : 0;
  const headsAtOnce = Math.min(groupsAtOnce / headGroups, scratchTexels / copiedTexels);
  for (const range of headRanges(geometry, headsAtOnce)) {
    withScratch(context, (scratch) => {
      const inOrder = (rows: RowTexture | KeptRows): RowTexture =>
        plan
          ? scratch(new PermuteRowsProgram(call, rows, {keyIndices: plan.keyIndices, ...range}).run(context))
          : (rows as RowTexture);
      const [keys, values] = [inOrder(key), value && inOrder(value)];
      for (const [firstGroup, endGroup] of rangesOf(range.heads * headGroups, groupsAtOnce)) {
        const slotTexels = textures * (endGroup - firstGroup) * blockTiles * drawBuffers;
        // The scores of a round stand in one row a group, and a row in one column of a texture.
        const slotsThatFit = Math.floor(Math.min(scratchTexels / slotTexels, maxTextureSize / blockTiles));
        const slotsPerRound = Math.max(1, Math.min(slotsThatFit, keyBlocks));
        const groups = {firstGroup, endGroup, slotsPerRound, parts: 1};
        withScratch(context, (walkScratch) =>
          body({call, plan, geometry, keys, values, ...range, ...groups}, walkScratch),
        );
      }
    });
  }
}
