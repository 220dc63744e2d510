import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {ProgramSpec, Uniforms} from '../runtime/program_spec.js';
import {i32} from '../runtime/program.js';
import type {WebGPUCall, WebGPUPlan} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {gridVariant} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keyEnd, keyLengthsInput, keysVariant} from '../wgsl/key_lengths.js';
import {headVectors, keyRow, readRow, rowComponents, rowInput, workgroupIndexInLaunch, writeRow} from '../wgsl/rows.js';
import {logitScale, stateVectors} from '../wgsl/softmax_state.js';

/** What the text of the programs of the attend stage depends on, whatever they multiply with. */
export interface AttendForm extends KeysVariant, GridVariant {
  valueDim: number;
  /** Whether a plan names the keys, or all of them count. */
  sparse: boolean;
  /** Type of the mask, if there is one. */
  mask?: 'bool' | 'float32';
  /**
   * Whether a workgroup takes a chunk of the keys alone and hands on a state of the softmax (`attend_split.ts`). Without a
   * plan, query rows are then those of all heads that read one key head, one head after the other.
   */
  split: boolean;
}

export function attendForm(call: WebGPUCall, plan?: WebGPUPlan, split = false): AttendForm {
  const {geometry, mask} = call;
  return {
    ...keysVariant(call),
    ...gridVariant(call),
    valueDim: geometry.valueDim,
    sparse: plan !== undefined,
    ...(mask && {mask: mask.dtype as 'bool' | 'float32'}),
    split,
  };
}

/** Whether rows of grouped heads stand together. */
const isPacked = ({sparse, split}: AttendForm) => split && !sparse;

interface WalkOptions {
  tileQueries: number;
  plan?: WebGPUPlan;
  /** Into how many the keys are cut. */
  chunks?: number;
}

/** What the programs of the attend stage have in common, whatever they multiply with. */
export function attendSpec(
  call: WebGPUCall,
  form: AttendForm,
  options: WalkOptions,
): Omit<ProgramSpec<never>, 'name' | 'threads' | 'variant'> {
  const {query, key, value, geometry} = call;
  const {batch, heads, queryLength, valueDim} = geometry;
  const {inputs, ...walk} = walkSpec(call, form, options);
  return {
    ...walk,
    inputs: {query: rowInput(query), key: rowInput(key), value: rowInput(value), ...inputs},
    outputShape: form.split
      ? [batch * heads * queryLength, options.chunks ?? 1, 4 * stateVectors(valueDim)]
      : [batch, heads, queryLength, valueDim],
    outputComponents: form.split ? 4 : rowComponents(valueDim),
  };
}

/** What programs that own query rows and walk over keys have in common: `attendWalk` reads these inputs and uniforms. */
export function walkSpec(
  call: WebGPUCall,
  form: AttendForm,
  {tileQueries, plan, chunks = 1}: WalkOptions,
): Pick<ProgramSpec<never>, 'inputs' | 'workgroups' | 'uniforms' | 'launches'> {
  const {geometry, mask} = call;
  const {batch, heads, keyValueHeads, queryOffset} = geometry;
  const queryTiles = countQueryTiles(geometry, form, tileQueries);
  return {
    inputs: {
      ...(plan && {keyIndices: {tensor: plan.keyIndices}, blockLists: {tensor: plan.blockLists}}),
      ...(form.padded && keyLengthsInput(call)),
      ...(mask && {mask: {tensor: mask}}),
    },
    workgroups: batch * (isPacked(form) ? keyValueHeads : heads) * queryTiles * chunks,
    launches: call.launches ?? 1,
    uniforms: {
      logitScale: logitScale(call),
      queryTiles: i32(queryTiles),
      ...(plan && blockUniforms(geometry)),
      ...(form.offset && {queryOffset: i32(queryOffset)}),
    },
  };
}

/** Block sizes of programs that walk by lists. A block longer than all would be walked over in rounds of nothing. */
export const blockUniforms = ({blockSize, keyBlockSize, queryLength, keyLength}: BlockGeometry): Uniforms => ({
  blockSize: i32(Math.min(blockSize, queryLength)),
  keyBlockSize: i32(Math.min(keyBlockSize, keyLength)),
});

/** Query tiles of a head, or of a group of heads. Tiles of blocks do not cross the end of one; the last may have fewer. */
export function countQueryTiles(
  {heads, keyValueHeads, queryLength, blockSize, queryBlocks}: BlockGeometry,
  form: Pick<AttendForm, 'sparse' | 'split'>,
  tileQueries: number,
): number {
  if (!form.sparse) {
    return Math.ceil((queryLength * (form.split ? heads / keyValueHeads : 1)) / tileQueries);
  }
  const lastRows = queryLength - (queryBlocks - 1) * blockSize;
  return (queryBlocks - 1) * Math.ceil(blockSize / tileQueries) + Math.ceil(lastRows / tileQueries);
}

/**
 * Shader text: which query rows a workgroup owns and which keys it walks over, in tiles of `tileKeys`; and how to read and
 * write them.
 */
export function attendWalk(form: AttendForm): string {
  const {headDim, valueDim, split} = form;
  return `${workgroupIndexInLaunch}
${keyRow}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', valueDim)}
${split ? writeState(valueDim) : writeRow('writeOutput', valueDim)}
${walkOverKeys(form)}`;
}

/** The part of it that says which rows and keys. */
export function walkOverKeys(form: AttendForm): string {
  const {sparse, padded, mask} = form;
  const position = 'keyPosition(head, tile.x + slot)';
  return `// Original index given to the padding of a key tile: past every limit.
const paddingPosition = 0x7fffffff;${padded ? keyEnd('uniforms.queryShape.y', 'uniforms.keyShape.z') : ''}${mask ? maskScores(mask) : ''}
${sparse ? sparseKeyTiles : exactKeyTiles(form)}

// Original index of the key in a slot of the tile that covers slots [tile.x, tile.y).
fn positionIn(head : i32, tile : vec2<i32>, slot : i32) -> i32 {
  if (tile.x + slot < tile.y) {
    ${padded ? `return select(paddingPosition, ${position}, ${position} < keyEnd(head));` : `return ${position};`}
  }
  return paddingPosition;
}`;
}

/** Functions that write a row's part of a state: values, from value `4 * vector` on, and what belongs to the whole row. */
function writeState(valueDim: number): string {
  const at = `(row * uniforms.outShape.y + chunk) * ${stateVectors(valueDim)}`;
  return `
fn writeValues(row : i32, chunk : i32, vector : i32, x : vec4<f32>) {
  result[${at} + vector] = x;
}
fn writeSums(row : i32, chunk : i32, maximum : f32, sum : f32) {
  result[${at} + ${headVectors(valueDim)}] = vec4<f32>(maximum, sum, 0.0, 0.0);
}`;
}

/** A function that gives a row's score of a key with the mask: its dimensions of 1 broadcast. */
export function maskScores(mask: 'bool' | 'float32'): string {
  const score =
    mask === 'bool'
      ? 'select(masked, score, x != 0)'
      : // −Infinity, told by its bits, hides the key; no finite value does, so the scores stay far above masked.
        `select(score + ${Math.LOG2E}f * select(x, -6e37f, x < -6e37f), masked, bitcast<u32>(x) == 0xff800000u)`;
  return `
// Where the mask of a row starts. Rows past the end read some row that exists.
fn maskRow(head : i32, row : i32) -> i32 {
  let heads = uniforms.queryShape.y;
  let last = uniforms.maskShape - 1;
  let entry = min(head / heads, last.x) * uniforms.maskShape.y + min(head % heads, last.y);
  return (entry * uniforms.maskShape.z + min(row, last.z)) * uniforms.maskShape.w;
}

fn maskedScore(score : f32, maskStart : i32, position : i32) -> f32 {
  let x = mask[maskStart + min(position, uniforms.maskShape.w - 1)];
  return ${score};
}`;
}

/** Expression: the last position that the row (an expression, too) of a workgroup may see. Padding is past it already. */
export function lastVisible(form: AttendForm, row: string): string {
  if (!form.causal) {
    return 'paddingPosition - 1';
  }
  const ownRow = isPacked(form) ? `(${row}) % uniforms.queryShape.z` : row;
  return form.offset ? `uniforms.queryOffset + ${ownRow}` : ownRow;
}

/** Expression: where the mask of that row starts. */
export const maskStart = (form: AttendForm, row: string): string =>
  isPacked(form)
    ? `maskRow(head + (${row}) / uniforms.queryShape.z, (${row}) % uniforms.queryShape.z)`
    : `maskRow(head, ${row})`;

/** Expression: the score of a key at `position`, with what the mask of the row says. */
export const withMask = ({mask}: Pick<AttendForm, 'mask'>, score: string, position: string): string =>
  mask ? `maskedScore(${score}, maskStart, ${position})` : score;

/** Arguments of `keySlots` that name a key tile, of those that the workgroup walks over. */
export const keyTile = ({split}: AttendForm, t: string): string =>
  split ? `firstTile + ${t}, firstTile + keyTiles` : `${t}, keyTiles`;

/** Shader text: sets `keyTileCount`, by one invocation. */
export const countTiles = ({split}: AttendForm, isFirst: string): string =>
  split
    ? `  let allTiles = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  let chunkTiles = (allTiles + uniforms.outShape.y - 1) / uniforms.outShape.y;
  let firstTile = chunk * chunkTiles;
  if (${isFirst}) {
    keyTileCount = clamp(allTiles - firstTile, 0, chunkTiles);
  }`
    : `  if (${isFirst}) {
    keyTileCount = select(0, countKeyTiles(head, queryTileIndex, endRow), firstRow < endRow);
  }`;

/** Shader text at the start of `main`: the head and the query rows [firstRow, endRow) that this workgroup owns. */
export const ownedRows = (form: AttendForm): string => (form.split ? ownedChunk(isPacked(form)) : wholeRows);

/** The same of a workgroup with a chunk of the keys. Those of one chunk stand together: they read the same keys. */
const ownedChunk = (packed: boolean) => `  let heads = uniforms.queryShape.y;
  let allHeads = uniforms.queryShape.x * ${packed ? 'uniforms.keyShape.y' : 'heads'};
  let head = (workgroupIndex() % allHeads)${packed ? ' * (heads / uniforms.keyShape.y)' : ''};
  let firstKeyRow = keyRow(head, heads, 0);
  let lastPosition = uniforms.keyShape.z - 1;
  let queryTileIndex = (workgroupIndex() / allHeads) % uniforms.queryTiles;
  let chunk = workgroupIndex() / (allHeads * uniforms.queryTiles);
  let span = queryRows(queryTileIndex);
  let firstRow = span.x;
  // Workgroups beyond those asked for get no rows.
  let endRow = select(span.y, firstRow, chunk >= uniforms.outShape.y);`;

const wholeRows = `  let heads = uniforms.queryShape.y;
  let allHeads = uniforms.queryShape.x * heads;
  let head = workgroupIndex() % allHeads;
  let firstKeyRow = keyRow(head, heads, 0);
  let lastPosition = uniforms.keyShape.z - 1;
  // Last rows first: under a causal mask they have most keys, and a long workgroup should not start last. Workgroups
  // beyond those asked for get a negative index and no rows.
  let queryTileIndex = uniforms.queryTiles - 1 - workgroupIndex() / allHeads;
  let span = queryRows(queryTileIndex);
  let firstRow = span.x;
  let endRow = select(span.y, firstRow, queryTileIndex < 0);`;

/** Query rows and keys of a workgroup that attends to the blocks of a list. */
const sparseKeyTiles = `
fn tilesIn(size : i32, tile : i32) -> i32 {
  return (size + tile - 1) / tile;
}

// Query rows [first, end) of a query tile; a tile does not cross the end of its block.
fn queryRows(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileQueries);
  let block = tile / tilesPerBlock;
  let first = block * uniforms.blockSize + (tile % tilesPerBlock) * tileQueries;
  let end = min((block + 1) * uniforms.blockSize, uniforms.queryShape.z);
  return vec2<i32>(first, min(first + tileQueries, end));
}

// Where the block list of a query tile starts: its length, then its blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.blockSize, tileQueries);
  return (head * uniforms.blockListsShape.z + block) * uniforms.blockListsShape.w;
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return blockLists[listStart(head, tile)] * tilesIn(uniforms.keyBlockSize, tileKeys);
}

// Slots [first, end) in the permuted order that key tile t covers; none past the last tile.
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  if (t >= count) {
    return vec2<i32>(0);
  }
  let tilesPerBlock = tilesIn(uniforms.keyBlockSize, tileKeys);
  let block = blockLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.keyBlockSize + (t % tilesPerBlock) * tileKeys;
  let end = min((block + 1) * uniforms.keyBlockSize, uniforms.keyShape.z);
  return vec2<i32>(first, min(first + tileKeys, end));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}`;

/** The same for exact attention: all keys that the last row of the tile may see, in their own order. */
function exactKeyTiles(form: AttendForm): string {
  const rows = isPacked(form)
    ? 'uniforms.queryShape.z * (uniforms.queryShape.y / uniforms.keyShape.y)'
    : 'uniforms.queryShape.z';
  const endRow = isPacked(form) ? 'uniforms.queryShape.z' : 'endRow';
  const causalEnd = form.offset ? `uniforms.queryOffset + ${endRow}` : endRow;
  const end = form.causal ? causalEnd : 'uniforms.keyShape.z';
  return `
fn queryRows(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, ${rows}));
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return (${form.padded ? `min(${end}, keyEnd(head))` : end} + tileKeys - 1) / tileKeys;
}

fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  return vec2<i32>(t * tileKeys, min((t + 1) * tileKeys, uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return slot;
}`;
}
