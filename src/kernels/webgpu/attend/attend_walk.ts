import {unroll} from '../../unroll.js';
import {keyEnd} from '../wgsl/key_lengths.js';
import {headVectors, keyRow, readRow, workgroupIndexInLaunch, writeRow} from '../wgsl/rows.js';
import {hookedScore, hookFunctions, hooksOfRow} from '../wgsl/score_hooks.js';
import {stateVectors} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {rowOf} from '../wgsl/tile.js';
import type {AttendForm} from './attend_form.js';
import {isPacked} from './attend_form.js';

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
  const {sparse, padded} = form;
  const position = 'keyPosition(head, tile.x + slot)';
  return `// Original index given to the padding of a key tile: past every limit.
const paddingPosition = 0x7fffffff;${padded ? keyEnd('uniforms.queryShape.y', 'uniforms.keyShape.z') : ''}${hookFunctions(form)}
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

/** Expression: the last position that the row (an expression, too) of a workgroup may see. Padding is past it already. */
export function lastVisible(form: AttendForm, row: string): string {
  if (!form.causal) {
    return 'paddingPosition - 1';
  }
  const ownRow = isPacked(form) ? `(${row}) % uniforms.queryShape.z` : row;
  return form.offset ? `uniforms.queryOffset + ${ownRow}` : ownRow;
}

/** Statements: what the scores of a row (an expression) of a workgroup share: how far it sees, and what hooks know of it. */
export function scoresOfRow(form: AttendForm, row: string): string {
  const [head, ownRow] = isPacked(form)
    ? [`head + (${row}) / uniforms.queryShape.z`, `(${row}) % uniforms.queryShape.z`]
    : ['head', row];
  return [`let lastVisible = ${lastVisible(form, row)};`, ...hooksOfRow(form, head, ownRow)].join('\n      ');
}

/** Expression: the score of that row with a key at `position`, of a product in units of log2; `masked` where it does not see it. */
export const scoreOf = (form: AttendForm, product: string, position: string): string =>
  `select(${hookedScore(form, product, position)}, masked, ${position} > lastVisible)`;

/**
 * Statements: makes scores of `scores`, `[rows][columns]`, which holds products; the keys of the columns stand at `position0`,
 * `position1`, …
 *
 * @param scaled expression: a product in units of log2.
 */
export const scoresOfProducts = (
  form: AttendForm,
  {rows, columns}: Tile,
  scaled = (product: string) => product,
): string =>
  unroll(
    rows,
    (r) => `{
      ${scoresOfRow(form, `firstRow + ${rowOf(r)}`)}
      ${unroll(columns, (c) => `scores[${r}][${c}] = ${scoreOf(form, scaled(`scores[${r}][${c}]`), `position${c}`)};`)}
    }`,
  );

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
