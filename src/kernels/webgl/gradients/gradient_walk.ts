import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {AttendWalk} from '../attend/attend_walk.js';
import {groupsPerBlock, tilesPerBlock} from '../attend/attend_walk.js';
import type {AttentionContext} from '../runtime/context.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {groupRows} from '../glsl/score_tile.js';

/** Heads `[firstHead, firstHead + heads)` whose copies in permuted order are kept at a time. */
export interface HeadRange {
  firstHead: number;
  heads: number;
}

/** All heads, as many at a time as have groups for one range. */
export function headRanges(context: AttentionContext, geometry: BlockGeometry): HeadRange[] {
  const {batch, heads, queryBlocks} = geometry;
  const atOnce = Math.floor(groupsAtOnce(context, geometry) / (queryBlocks * groupsPerBlock(geometry)));
  const ranges: HeadRange[] = [];
  for (let firstHead = 0; firstHead < batch * heads; firstHead += Math.max(1, atOnce)) {
    ranges.push({firstHead, heads: Math.min(Math.max(1, atOnce), batch * heads - firstHead)});
  }
  return ranges;
}

/** The walks of some heads, each of as many groups as the scratch textures hold. */
export function headWalks(
  context: AttentionContext,
  geometry: BlockGeometry,
  range: HeadRange,
  causal: boolean,
  sparse: boolean,
  keyLengths?: RowTexture,
): AttendWalk[] {
  const {drawBuffers, scratchTexels, maxTextureSize} = context;
  const groups = range.heads * geometry.queryBlocks * groupsPerBlock(geometry);
  const atOnce = groupsAtOnce(context, geometry);
  const walks: AttendWalk[] = [];
  for (let firstGroup = 0; firstGroup < groups; firstGroup += atOnce) {
    const endGroup = Math.min(firstGroup + atOnce, groups);
    // Scores and products, of one round.
    const blockTiles = tilesPerBlock(geometry, drawBuffers);
    const slotTexels = 2 * (endGroup - firstGroup) * blockTiles * drawBuffers;
    // The scores of a round stand in one row a group, and a row in one column of a texture.
    const slotsThatFit = Math.floor(Math.min(scratchTexels / slotTexels, maxTextureSize / blockTiles));
    const slotsPerRound = Math.max(1, Math.min(slotsThatFit, geometry.keyBlocks));
    walks.push({
      geometry,
      causal,
      sparse,
      tileKeys: drawBuffers,
      ...range,
      firstGroup,
      endGroup,
      slotsPerRound,
      parts: 1,
      keyLengths,
    });
  }
  return walks;
}

/** The same geometry with keys in the place of queries: for walks of keys over the queries that see them. */
export function transposed(geometry: BlockGeometry): BlockGeometry {
  const {queryLength, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  return {
    ...geometry,
    queryLength: keyLength,
    keyLength: queryLength,
    blockSize: keyBlockSize,
    keyBlockSize: blockSize,
    queryBlocks: keyBlocks,
    keyBlocks: queryBlocks,
  };
}

/** Texels a group of weighted sums of rows: a fragment writes `drawBuffers` vectors, as many for each of four rows. */
export const sumTexels = (dim: number, drawBuffers: number) =>
  Math.ceil(Math.ceil(dim / 4) / (drawBuffers / groupRows));

/** Values a row as the programs of weighted sums read it: no fragment looks past the row. */
export const sumColumns = (dim: number, drawBuffers: number) => sumTexels(dim, drawBuffers) * drawBuffers;

/** Groups whose scores and products of one block, and whose two textures of sums, fit the scratch textures. */
function groupsAtOnce({drawBuffers, scratchTexels}: AttentionContext, geometry: BlockGeometry): number {
  const scoreTexels = 2 * tilesPerBlock(geometry, drawBuffers) * drawBuffers;
  const texels = 4 * drawBuffers * sumTexels(Math.max(geometry.headDim, geometry.valueDim), drawBuffers);
  return Math.max(1, Math.floor(scratchTexels / Math.max(scoreTexels, texels)));
}
