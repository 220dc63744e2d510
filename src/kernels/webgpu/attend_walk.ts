import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import type {ProgramSpec} from './program.js';
import {keyRow, readRow, rowComponents, workgroupIndex, writeRow} from './program.js';

/** What selection hands to attention: keys in permuted order and the block lists (see `block_geometry.ts`). */
export interface BlockPlan {
  keyIndices: TensorInfo;
  blockLists: TensorInfo;
}

/**
 * What the programs of the attend stage have in common, whatever they multiply with. Scores are in units of log2, so that
 * `exp2` gives weights: `logitScale` is the scale times log2(e).
 */
export function attendSpec(
  query: TensorInfo,
  key: TensorInfo,
  value: TensorInfo,
  {batch, heads, queryLength, headDim, blockSize, queryBlocks}: BlockGeometry,
  tileQueries: number,
  scale: number,
  plan?: BlockPlan,
): Omit<ProgramSpec<never>, 'threads' | 'variant'> {
  const components = rowComponents(headDim);
  const queryTiles = plan ? queryBlocks * Math.ceil(blockSize / tileQueries) : Math.ceil(queryLength / tileQueries);
  return {
    inputs: {
      query: {tensor: query, components},
      key: {tensor: key, components},
      value: {tensor: value, components},
      ...(plan && {
        keyIndices: {tensor: plan.keyIndices, components: 1},
        blockLists: {tensor: plan.blockLists, components: 1},
      }),
    },
    outputShape: query.shape,
    outputType: 'float32',
    outputComponents: components,
    workgroups: batch * heads * queryTiles,
    uniforms: {
      logitScale: {type: 'f32', value: scale * Math.LOG2E},
      queryTiles: {type: 'i32', value: queryTiles},
      ...(plan && {blockSize: {type: 'i32', value: blockSize}}),
    },
  };
}

/**
 * Shader text: which query rows a workgroup owns and which keys it walks over, in tiles of `tileKeys`; and how to read and
 * write them.
 */
export function attendWalk(headDim: number, sparse: boolean, causal: boolean): string {
  return `${workgroupIndex}
${keyRow}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', headDim)}
${writeRow('writeOutput', headDim)}
// Original index given to the padding of a key tile: past every limit.
const nowhere = 0x7fffffff;
${sparse ? sparseKeyTiles : exactKeyTiles(causal)}

// Original index of the key in a slot of the tile that covers slots [tile.x, tile.y).
fn positionIn(head : i32, tile : vec2<i32>, slot : i32) -> i32 {
  if (tile.x + slot < tile.y) {
    return keyPosition(head, tile.x + slot);
  }
  return nowhere;
}`;
}

/** Shader text at the start of `main`: the head and the query rows [firstRow, endRow) that this workgroup owns. */
export const ownedRows = `  let heads = uniforms.queryShape.y;
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
  let blocks = uniforms.blockListsShape.z;
  let block = tile / tilesIn(uniforms.blockSize, tileQueries);
  return (head * blocks + block) * (blocks + 1);
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return blockLists[listStart(head, tile)] * tilesIn(uniforms.blockSize, tileKeys);
}

// Slots [first, end) in the permuted order that key tile t covers; none past the last tile.
fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  if (t >= count) {
    return vec2<i32>(0);
  }
  let tilesPerBlock = tilesIn(uniforms.blockSize, tileKeys);
  let block = blockLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileKeys;
  let end = min((block + 1) * uniforms.blockSize, uniforms.keyShape.z);
  return vec2<i32>(first, min(first + tileKeys, end));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}`;

/** The same for exact attention: all keys that the last row of the tile may see, in their own order. */
function exactKeyTiles(causal: boolean): string {
  return `
fn queryRows(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileQueries, min((tile + 1) * tileQueries, uniforms.queryShape.z));
}

fn countKeyTiles(head : i32, tile : i32, endRow : i32) -> i32 {
  return (${causal ? 'endRow' : 'uniforms.keyShape.z'} + tileKeys - 1) / tileKeys;
}

fn keySlots(head : i32, tile : i32, t : i32, count : i32) -> vec2<i32> {
  return vec2<i32>(t * tileKeys, min((t + 1) * tileKeys, uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return slot;
}`;
}
