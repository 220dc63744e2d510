import {unroll} from '../../unroll.js';
import {keyEnd} from '../wgsl/key_lengths.js';
import {headVectors, keyRow, workgroupIndex, writeRow} from '../wgsl/rows.js';
import {listedTiles} from '../wgsl/listed_tiles.js';
import {positionOf} from '../wgsl/position_hooks.js';
import {hookedScore, hookFunctions, hooksOfRow} from '../wgsl/score_hooks.js';
import {noScores, stateVectors} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {rowOf} from '../wgsl/tile.js';
import type {AttendForm} from './attend_form.js';
import {isPacked} from './attend_form.js';

/**
 * Shader text: which query rows a workgroup owns and which keys it walks over, in tiles of `tileKeys`; and how to read and
 * write them.
 */
export function attendWalk(form: AttendForm): string {
  const {valueDim, split} = form;
  return `${split ? writeState(valueDim) : writeRow('writeOutput', valueDim)}
${walkOverKeys(form)}`;
}

/** The part of it that says which rows and keys. */
export function walkOverKeys(form: AttendForm): string {
  const {sparse, padded, perHead} = form;
  const position = 'keyPosition(head, tile.x + slot)';
  return `${workgroupIndex}
${keyRow}${noScores}
// Original index given to the padding of a key tile: past every limit.
const paddingPosition = 0x7fffffff;
// Barriers of the walk need a number that all invocations are known to share. It takes 16 bytes, so that what a driver puts behind it
// begins at a multiple of them, as matrix units need it.
var<workgroup> keyTileCount : vec4<i32>;
${keyEnd({padded, perHead})}${hookFunctions(form)}
${sparse ? sparseKeyTiles(form) : exactKeyTiles(form)}

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
  const ownRow = isPacked(form) ? `(${row}) % uniforms.queryLength` : row;
  if (!form.causal) {
    return form.window ? `${positionOf(ownRow)} + uniforms.window - 1` : 'paddingPosition - 1';
  }
  return form.offset ? `uniforms.queryOffset + ${ownRow}` : ownRow;
}

/** Statements: what the scores of a row (an expression) of a workgroup share: how far it sees, and what hooks know of it. */
export function scoresOfRow(form: AttendForm, row: string): string {
  const [head, ownRow] = isPacked(form)
    ? [`head + (${row}) / uniforms.queryLength`, `(${row}) % uniforms.queryLength`]
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

/**
 * Shader text at the start of `main`, behind `local`: the head, the query rows [firstRow, endRow) that this workgroup owns, and how
 * many tiles of keys it walks over.
 */
export function ownedRows(form: AttendForm): string {
  const {sparse, split} = form;
  const packed = isPacked(form);
  return `  let allHeads = uniforms.batch * uniforms.${packed ? 'keyValueHeads' : 'heads'};
  let head = workgroupIndex() % allHeads${packed ? ' * (uniforms.heads / uniforms.keyValueHeads)' : ''};
  let firstKeyRow = keyRow(head, 0);
  let lastPosition = uniforms.keyLength - 1;
  ${split ? placeOfChunk : placeOfTile}
  let span = ownedSpan(queryTileIndex);
  let firstRow = span.x;
  // Workgroups beyond those asked for get no rows.
  let endRow = select(firstRow, span.y, exists);
  ${form.window && !sparse ? 'windowStart = firstKeyTile(queryTileIndex) * tileKeys;\n  ' : ''}let allTiles = select(0, ${sparse ? 'countListed(head, queryTileIndex)' : countTiles(form)}, firstRow < endRow);${split ? tilesOfChunk : ''}
  if (local == 0) {
    keyTileCount.x = ${split ? 'clamp(allTiles - firstTile, 0, chunkTiles)' : 'allTiles'};
  }
  // Barriers stand in a loop that all invocations must run equally often: hence the uniform load.
  let keyTiles = workgroupUniformLoad(&keyTileCount).x;`;
}

const placeOfTile = `// Last rows first: under a causal mask they have most keys, and a long workgroup should not start last.
  let queryTileIndex = uniforms.queryTiles - 1 - workgroupIndex() / allHeads;
  let exists = queryTileIndex >= 0;`;

const placeOfChunk = `// Workgroups of one chunk of the keys stand together: they read the same ones.
  let queryTileIndex = (workgroupIndex() / allHeads) % uniforms.queryTiles;
  let chunk = workgroupIndex() / (allHeads * uniforms.queryTiles);
  let exists = chunk < uniforms.outShape.y;`;

const tilesOfChunk = `
  let chunkTiles = (allTiles + uniforms.outShape.y - 1) / uniforms.outShape.y;
  let firstTile = chunk * chunkTiles;`;

/** Query rows and keys of a workgroup that attends to the blocks of a list. */
const sparseKeyTiles = ({joined}: AttendForm) => `${listedTiles('blocks', joined)}

// Slots [first, end) that key tile t covers; none past the last tile.
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  if (t >= count) {
    return vec2<i32>(0);
  }
  return listedTile(head, tile, t);
}`;

/** Expression: how many tiles a workgroup walks over where no list says it. */
const countTiles = ({window}: AttendForm) =>
  window ? 'max(0, countKeyTiles(head, endRow) - firstKeyTile(queryTileIndex))' : 'countKeyTiles(head, endRow)';

/** Expression: the first key of tile t of those that a workgroup walks over, in exact attention. */
export const firstKeyOf = ({window}: AttendForm, t: string) => `${window ? 'windowStart + ' : ''}${t} * tileKeys`;

/**
 * The same for exact attention: all keys that the last row of the tile may see, in their own order; with a window from the first tile on
 * that its first row may see.
 */
function exactKeyTiles(form: AttendForm): string {
  const rows = isPacked(form)
    ? 'uniforms.queryLength * (uniforms.heads / uniforms.keyValueHeads)'
    : 'uniforms.queryLength';
  const endRow = isPacked(form) ? 'uniforms.queryLength' : 'endRow';
  const causalEnd = form.offset ? `uniforms.queryOffset + ${endRow}` : endRow;
  const windowEnd = `min(uniforms.keyLength, ${positionOf(endRow)} - 1 + uniforms.window)`;
  const end = form.causal ? causalEnd : form.window ? windowEnd : 'uniforms.keyLength';
  // Packed rows of a tile can be of several heads: all begin with the first.
  const firstRow = isPacked(form) ? '0' : 'ownedSpan(tile).x';
  const slots = form.window
    ? `let first = windowStart + t * tileKeys;
  return vec2<i32>(first, min(first + tileKeys, uniforms.keyLength));`
    : 'return vec2<i32>(t * tileKeys, min((t + 1) * tileKeys, uniforms.keyLength));';
  const firstTile = `
// The first tile of keys with one in the window of a row.
fn firstKeyTile(tile : i32) -> i32 {
  return max(0, ${positionOf(firstRow)} - uniforms.window + 1) / tileKeys;
}
// The first key of the first tile that this workgroup walks over.
var<private> windowStart : i32;
`;
  return `
fn ownedSpan(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, ${rows}));
}

fn countKeyTiles(head : i32, endRow : i32) -> i32 {
  return (${form.padded ? `min(${end}, keyEnd(head))` : end} + tileKeys - 1) / tileKeys;
}

${form.window ? firstTile : ''}fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  ${slots}
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return slot;
}`;
}
