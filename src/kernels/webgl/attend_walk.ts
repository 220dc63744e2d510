import type {BlockGeometry} from '../block_geometry.js';
import type {Uniforms} from './program.js';
import type {RowTexture} from './row_texture.js';
import {groupRows} from './score_tile.js';

/** What selection hands to attention: keys in permuted order and the block lists (see `block_geometry.ts`). */
export interface BlockPlan {
  keyIndices: RowTexture;
  blockLists: RowTexture;
}

/**
 * How attention is cut. A *group* is four query rows of a block, a *tile* some keys of a block (which ones, says
 * `score_tile.ts`). Groups are numbered `[query block, head, group of the block]`, so that those which see the keys of a
 * later round, under a causal mask, stand at the end. A *slot* is a place in
 * the walk of a query block over its key blocks: the place in its list, or for exact attention the key block itself.
 *
 * One *range* of groups at a time walks over the slots, in rounds of `slotsPerRound`.
 */
export interface AttendWalk {
  geometry: BlockGeometry;
  causal: boolean;
  sparse: boolean;
  /** Keys of a tile: as many as there are draw buffers. */
  tileKeys: number;
  firstGroup: number;
  endGroup: number;
  slotsPerRound: number;
}

export const groupsPerBlock = ({blockSize, length}: BlockGeometry) =>
  Math.ceil(Math.min(blockSize, length) / groupRows);

export const tilesPerBlock = ({blockSize}: BlockGeometry, tileKeys: number) => Math.ceil(blockSize / tileKeys);

/** What changes the shader text of a walk. */
export interface WalkVariant {
  causal: boolean;
  sparse: boolean;
  tileKeys: number;
}

export const walkVariant = ({causal, sparse, tileKeys}: AttendWalk): WalkVariant => ({causal, sparse, tileKeys});

/** Uniforms of `walkText`. */
export function walkUniforms(walk: AttendWalk): Uniforms {
  const {geometry, sparse, firstGroup, slotsPerRound, tileKeys} = walk;
  const {batch, heads, keyValueHeads, length, blockSize, blocks} = geometry;
  return {
    heads: {type: 'int', value: heads},
    keyHeads: {type: 'int', value: keyValueHeads},
    allHeads: {type: 'int', value: batch * heads},
    length: {type: 'int', value: length},
    blockSize: {type: 'int', value: blockSize},
    firstGroup: {type: 'int', value: firstGroup},
    groupsPerBlock: {type: 'int', value: groupsPerBlock(geometry)},
    tilesPerBlock: {type: 'int', value: tilesPerBlock(geometry, tileKeys)},
    slotsPerRound: {type: 'int', value: slotsPerRound},
    ...(sparse && {blocks: {type: 'int', value: blocks}}),
  };
}

/** Shader text: which head and query rows a group has, and how many slots it walks over. */
export function groupText({causal, sparse}: WalkVariant): string {
  return `
struct Group {
  int head;
  int block;
  ivec4 queries;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, allHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 queries = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(blockOfHead - block * allHeads, block, queries);
}
${
  sparse
    ? `int slotCount(Group group) {
  return int(readBlockLists(group.head * blocks + group.block, 0).x);
}`
    : `int slotCount(Group group) {
  return ${causal ? 'group.block + 1' : 'divide(length + blockSize - 1, blockSize)'};
}`
}`;
}

/** Shader text: the slots of a group in the round that starts at slot `firstSlot`, for programs with that uniform. */
export const roundText = `
int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}`;

/**
 * Shader text: `keysOf(group, slot)`, where the keys of a slot of the round stand, and `keysAt(keys, tile, four)`, original
 * indices of four keys of one of the slot's tiles, −1 for none.
 */
export function keysText({sparse, tileKeys}: WalkVariant): string {
  return sparse
    ? `
ivec2 keysOf(Group group, int slot) {
  int entry = 1 + firstSlot + slot;
  int list = group.head * blocks;
  int block = int(readBlockLists(list + group.block, entry / 4)[entry % 4]);
  return keyIndicesAt(list + block);
}
ivec4 keysAt(ivec2 keys, int tile, int four) {
  return ivec4(fetchKeyIndices(keys, tile * ${tileKeys / 4} + four, 0));
}`
    : `
ivec2 keysOf(Group group, int slot) {
  return ivec2((firstSlot + slot) * blockSize, 0);
}
ivec4 keysAt(ivec2 keys, int tile, int four) {
  ivec4 positions = keys.x + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
  return ivec4(mix(vec4(positions), vec4(-1.0), greaterThanEqual(positions, ivec4(length))));
}`;
}
