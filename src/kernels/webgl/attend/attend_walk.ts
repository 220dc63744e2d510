import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {candidateBlocks, candidateUniforms} from '../glsl/block_ranges.js';
import {keyEndText, keyLengthsInput} from '../glsl/key_lengths.js';
import {headUniforms, keyBase, orNone} from '../glsl/score_tile.js';
import {groupRows, tilesPerBlock} from '../glsl/tiles.js';
import type {ProgramSpec, Uniforms} from '../runtime/program.js';
import type {HeadRange} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall, WebGLPlan} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';

/**
 * How attention is cut. A *group* is four query rows of a block, a *tile* some keys of a block (which ones, says
 * `tiles.ts`). A *slot* is a place in the walk of a query block over its key blocks: the place in its list, or for
 * exact attention the key block itself.
 *
 * Some heads at a time walk over the slots. Their groups are numbered `[query block, head, group of the block]`, so that
 * those which see the keys of a later slot, under a causal mask, stand at the end. One *range* of groups at a time does so
 * in rounds of `slotsPerRound`.
 *
 * Where rows are few, as in decoding, a fragment for each group would leave most of the GPU idle while it walks over all
 * keys. There a group is walked over in *parts*: part p takes slots p, p + parts, … of a round and has sums of its own, which
 * are put together at the end.
 */
export interface AttendWalk extends HeadRange {
  call: WebGLCall;
  plan?: WebGLPlan;
  /** Of the groups and what they walk over: that of the call, or for the gradients of keys the same transposed. */
  geometry: BlockGeometry;
  /** With a plan copies of those of the heads, in permuted order. */
  keys: RowTexture;
  values: RowTexture;
  firstGroup: number;
  endGroup: number;
  slotsPerRound: number;
  parts: number;
}

/** Queries of at most so many rows have parts. */
const fewRows = 16;
/** Parts of all groups together. Times the texels of a value they are fragments: some thousands keep a GPU busy. */
const partsAtOnce = 512;

/** Parts that the groups of a walk can have. */
export const partsOf = ({geometry, firstGroup, endGroup, slotsPerRound}: AttendWalk) =>
  geometry.queryLength > fewRows
    ? 1
    : Math.max(1, Math.min(Math.floor(partsAtOnce / (endGroup - firstGroup)), slotsPerRound));

export const groupsPerBlock = ({blockSize, queryLength}: BlockGeometry) =>
  Math.ceil(Math.min(blockSize, queryLength) / groupRows);

/** What changes the shader text of a walk. */
export interface WalkVariant extends CallVariant {
  /** Whether there is a plan. */
  sparse: boolean;
  /** Whether there are parts. */
  split: boolean;
}

export const walkVariant = ({call, plan, parts}: AttendWalk): WalkVariant => ({
  ...callVariant(call),
  sparse: plan !== undefined,
  split: parts > 1,
});

/** Inputs of the texts below, but for the key indices, which `originsText` alone needs. */
export function walkInputs({call, plan}: AttendWalk): ProgramSpec<object>['inputs'] {
  return {...(plan && {blockLists: plan.blockLists}), ...keyLengthsInput(call)};
}

/** Uniforms of the texts below. */
export function walkUniforms(walk: AttendWalk): Uniforms {
  const {call, plan, geometry, firstHead, heads, firstGroup, slotsPerRound, parts} = walk;
  const {blockSize, keyBlockSize, queryLength, queryOffset} = geometry;
  return {
    ...headUniforms(geometry),
    queryLength,
    firstHead,
    walkHeads: heads,
    blockSize,
    keyBlockSize,
    firstGroup,
    groupsPerBlock: groupsPerBlock(geometry),
    tilesPerBlock: tilesPerBlock(geometry, call.context.drawBuffers),
    slotsPerRound,
    ...(parts > 1 && {parts}),
    ...(call.causal && {queryOffset}),
    ...(plan && candidateUniforms(geometry, call.causal)),
  };
}

/** Shader text: which head and query rows a group has, and how many slots it walks over. */
export function groupText(variant: WalkVariant): string {
  return `${variant.padded ? keyEndText : ''}
struct Group {
  int head;
  int block;
  ivec4 queries;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 queries = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, queries);
}
${slotCount(variant)}`;
}

function slotCount({causal, sparse, padded}: WalkVariant): string {
  if (sparse) {
    return `int slotCount(Group group) {
  return int(readBlockLists(group.head * queryBlocks + group.block, 0).x);
}`;
  }
  const end = causal ? 'queryOffset + min((group.block + 1) * blockSize, queryLength)' : 'keyLength';
  return `int slotCount(Group group) {
  return divide(${padded ? `min(${end}, keyEnd(group.head))` : end} + keyBlockSize - 1, keyBlockSize);
}`;
}

/** Shader text: the slots of a group in the round that starts at slot `firstSlot`, for programs with that uniform. */
export const roundText = `
int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}`;

/**
 * Shader text: `blockOf(group, slot)`, the key block of a slot of the round; `positionsIn(block, tile, four)`, where four
 * keys of one of its tiles stand after the row `firstKeyRow(head)`. Blocks of a list count in the permuted order, and so
 * do the rows of keys and values that attention gets with it.
 */
export function keysText({sparse}: WalkVariant): string {
  return `${
    sparse
      ? `
int blockOf(Group group, int slot) {
  int entry = 1 + firstSlot + slot;
  return int(readBlockLists(group.head * queryBlocks + group.block, entry / 4)[entry % 4]);
}
int firstKeyRow(int head) {
  return (head - firstHead) * keyLength;
}`
      : `
int blockOf(Group group, int slot) {
  return firstSlot + slot;
}
${keyBase}
int firstKeyRow(int head) {
  return keyBase(head);
}`
  }
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}`;
}

/** Shader text: `originsOf(…)`, original indices of the keys at the positions, −1 for none, as far as a mask needs them. */
export function originsText({sparse, causal, padded, tileKeys}: WalkVariant): string {
  const read = `ivec4(readKeyIndices(group.head * blocks + block, tile * ${tileKeys / 4} + four))`;
  if (sparse && padded) {
    return `${orNone}
ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {
  return orNone(${read}, keyEnd(group.head));
}`;
  }
  const end = `min((block + 1) * keyBlockSize, ${padded ? 'keyEnd(group.head)' : 'keyLength'})`;
  return `${sparse && causal ? candidateBlocks(causal) : ''}${orNone}
ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {${
    sparse && causal
      ? `
  // Keys of an earlier segment lie before every query of this one, whatever their order.
  if (block >= candidateBlocks(group.block)) {
    return ${read};
  }`
      : ''
  }
  // A tile can reach past the end of its block.
  return orNone(positions, ${end});
}`;
}
