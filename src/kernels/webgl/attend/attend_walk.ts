import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {firstBlock} from '../glsl/block_ranges.js';
import {keyEndText, keyLengthsInput} from '../glsl/key_lengths.js';
import type {ScoreForms} from '../glsl/score_forms.js';
import {keyBase, orNone} from '../glsl/score_tile.js';
import {groupRows, tilesPerBlock} from '../glsl/tiles.js';
import type {ProgramSpec, Uniforms} from '../runtime/program.js';
import {AttentionProgram} from '../runtime/program.js';
import type {HeadRange} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall, WebGLPlan} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';

/**
 * How attention is cut. A *group* is four query rows of a block, a *tile* some keys of a block (which ones, says
 * `tiles.ts`). A *slot* is a place in the walk of a query block over its key blocks: the place in its list, or for
 * exact attention the key block itself, counted from the first in the window.
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
  /** With a plan copies of those of the heads, in permuted order. No values where nothing reads them. */
  keys: RowTexture;
  values?: RowTexture;
  /** Where query heads that read the same keys are one head of the geometry, rows of each. */
  rowsOfHead?: number;
  firstGroup: number;
  endGroup: number;
  slotsPerRound: number;
  parts: number;
}

/** Queries of at most so many rows have parts. */
export const fewRows = 16;
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
  /** Whether rows of several heads stand together. */
  packed?: true;
}

/** Uniforms of the texts below, beside the sizes of the walk's geometry. */
export function walkUniforms(walk: AttendWalk): Uniforms {
  const {call, geometry, firstHead, heads, firstGroup, slotsPerRound, parts, rowsOfHead} = walk;
  return {
    ...(rowsOfHead !== undefined && {rowsOfHead}),
    firstHead,
    walkHeads: heads,
    firstGroup,
    groupsPerBlock: groupsPerBlock(geometry),
    tilesPerBlock: tilesPerBlock(geometry, call.context.drawBuffers),
    slotsPerRound,
    parts,
  };
}

/**
 * Base of programs of a walk: gives them the inputs, but for the key indices, which `originsText` alone needs, and the
 * uniforms of the texts below.
 */
export abstract class WalkProgram<Extra extends object> extends AttentionProgram<WalkVariant & Extra> {
  constructor(walk: AttendWalk, spec: Omit<ProgramSpec<Extra>, 'geometry'>) {
    const {call, plan, geometry, parts, rowsOfHead} = walk;
    super({
      ...spec,
      inputs: {...spec.inputs, ...(plan && {blockLists: plan.blockLists}), ...keyLengthsInput(call)},
      geometry,
      uniforms: {...walkUniforms(walk), ...spec.uniforms},
      variant: {
        ...callVariant(call),
        sparse: plan !== undefined,
        split: parts > 1,
        ...(rowsOfHead !== undefined && {packed: true}),
        ...spec.variant,
      },
    });
  }
}

/** Shader text: which head and block a group has, and which rows of the block: `queries`, or in a walk of keys `keys`. */
export const groupAt = (rows: 'queries' | 'keys') => `
struct Group {
  int head;
  int block;
  ivec4 ${rows};
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 ${rows} = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, ${rows});
}`;

/** Shader text: which head and query rows a group has, and how many slots it walks over. */
export const groupText = (variant: WalkVariant) => `${variant.padded ? keyEndText : ''}${groupAt('queries')}
${variant.sparse ? listedSlotCount : slotCount(variant)}`;

/** Shader text: `slotCount(group)` and `blockOf(group, slot)`, of the slots of the round, where blocks are listed. */
export const listedSlotCount = `int slotCount(Group group) {
  return int(readBlockLists(group.head * queryBlocks + group.block, 0).x);
}`;
export const listedBlockOf = `int blockOf(Group group, int slot) {
  int entry = 1 + firstSlot + slot;
  return int(readBlockLists(group.head * queryBlocks + group.block, entry / 4)[entry % 4]);
}`;

function slotCount({causal, padded, window, packed}: WalkVariant): string {
  const endRow = `queryOffset + ${packed ? 'rowsOfHead' : 'min((group.block + 1) * blockSize, queryLength)'}`;
  const end = causal ? endRow : window ? `min(${endRow} - 1 + window, keyLength)` : 'keyLength';
  const blocks = `divide(${padded ? `min(${end}, keyEnd(group.head))` : end} + keyBlockSize - 1, keyBlockSize)`;
  return `${window ? `${firstBlock.trim()}\n` : ''}int slotCount(Group group) {
  return ${window ? `max(0, ${blocks} - firstVisibleBlock(group.block))` : blocks};
}`;
}

/**
 * Shader text for the body of `compute`: the group of the row `position` of `head`, and which of its four rows it is, `query`.
 * What is not of the range, others draw. Needs the uniform `endGroup`.
 */
export const groupOfRow = `int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int query = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - query * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }`;

/**
 * Shader text for the body of `compute`, after `groupOfRow`: `text` of whichever texture the group's last round has drawn:
 * that of the first, third, … round, or the other.
 */
export const fromLastRound = (rounds: number, text: (name: 'Even' | 'Odd') => string) =>
  rounds === 1
    ? text('Even')
    : `int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (max(rounds, 1) % 2 == 1) {
    ${text('Even')}
  } else {
    ${text('Odd')}
  }`;

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
export const keysText = ({sparse, window}: WalkVariant) => `
${
  sparse
    ? `${listedBlockOf}
int firstKeyRow(int head) {
  return (head - firstHead) * keyLength;
}`
    : `int blockOf(Group group, int slot) {
  return ${window ? 'firstVisibleBlock(group.block) + ' : ''}firstSlot + slot;
}
${keyBase}
int firstKeyRow(int head) {
  return keyBase(head);
}`
}${positionsIn}`;

export const positionsIn = `
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}`;

/** Shader text: the last position that may be read. Rows in permuted order hold zeros for padding, others whatever came. */
export const lastKey = ({sparse, padded}: WalkVariant) =>
  padded && !sparse ? 'max(keyEnd(group.head), 1) - 1' : 'keyLength - 1';

/** Shader text: `originsOf(…)`, original indices of the keys at the positions, −1 for none, as far as a mask or a form of scores needs them. */
export function originsText({
  sparse,
  causal,
  padded,
  tileKeys,
  forms,
  mask,
}: WalkVariant & {forms?: ScoreForms; mask?: string}): string {
  const read = `ivec4(readKeyIndices(group.head * keyBlocks + block, tile * ${tileKeys / 4} + four))`;
  if (sparse && padded) {
    return `${orNone}
ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {
  return orNone(${read}, keyEnd(group.head));
}`;
  }
  // A plan that is given may hold keys of later segments in earlier ones.
  if (sparse && (causal || forms || mask)) {
    return `
ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {
  return ${read};
}`;
  }
  const end = `min((block + 1) * keyBlockSize, ${padded ? 'keyEnd(group.head)' : 'keyLength'})`;
  return `${orNone}
ivec4 originsOf(Group group, int block, int tile, int four, ivec4 positions) {
  // A tile can reach past the end of its block.
  return orNone(positions, ${end});
}`;
}
