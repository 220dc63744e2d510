import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import {maskScores, withMask} from './attend_walk.js';
import {statisticsValues} from './gradient_statistics.js';
import type {GradientTile} from './gradient_tile.js';
import {
  addProducts,
  addWeighted,
  gradientThreads,
  gradientTile,
  headChunks,
  maskedConstant,
  tilePlace,
  tileRows,
  weightsMemory,
  writeSums,
} from './gradient_tile.js';
import {AttentionProgram, keyRow, readRow, rowComponents, workgroupIndex} from './program.js';

/** Keys in permuted order, and for each block of them the query blocks that attend to it (see `query_lists.ts`). */
export interface QueryPlan {
  keyIndices: TensorInfo;
  queryLists: TensorInfo;
}

interface GradientVariant {
  tile: GradientTile;
  headDim: number;
  valueDim: number;
  causal: boolean;
  /** Whether a plan names the queries, or all of them count. */
  sparse: boolean;
  /** Type of the mask, if there is one. */
  mask?: 'bool' | 'float32';
}

/** Heads that have gradients of their own: see `GradientKeyProgram`. */
export const ownerHeads = ({batch, heads, keyValueHeads}: BlockGeometry, sparse: boolean) =>
  batch * (sparse ? heads : keyValueHeads);

/**
 * Stage 3 of the gradients, gradient key: float32, first the gradients of the keys, `[owners, keyLength, headDim]`, then
 * those of the values, `[owners, keyLength, valueDim]`. Sums over all query rows that see a key: d value = Σ weight · dy,
 * d key = scale · Σ d score · query.
 *
 * An owner is a key/value head, whose workgroups walk over the queries of all heads that share it; or, with a plan, a
 * query head, since each has an order of its own, and the heads of a group are added up by the next stage. Either way each
 * key has one workgroup that writes it, where the key stands, and nothing is added atomically.
 */
export class GradientKeyProgram extends AttentionProgram<GradientVariant> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    value: TensorInfo,
    dy: TensorInfo,
    statistics: TensorInfo,
    geometry: BlockGeometry,
    tile: GradientTile,
    scale: number,
    causal: boolean,
    plan?: QueryPlan,
    mask?: TensorInfo,
  ) {
    const {keyLength, queryOffset, headDim, valueDim, blockSize, keyBlocks} = geometry;
    const components = rowComponents(headDim);
    const valueComponents = rowComponents(valueDim);
    const size = tileRows(tile);
    const keyTiles = plan ? keyBlocks * Math.ceil(blockSize / size) : Math.ceil(keyLength / size);
    const owners = ownerHeads(geometry, plan !== undefined);
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        value: {tensor: value, components: valueComponents},
        dy: {tensor: dy, components: valueComponents},
        statistics: {tensor: statistics, components: 1},
        ...(plan && {
          keyIndices: {tensor: plan.keyIndices, components: 1},
          queryLists: {tensor: plan.queryLists, components: 1},
        }),
        ...(mask && {mask: {tensor: mask, components: 1}}),
      },
      outputShape: [owners * keyLength * (headDim + valueDim)],
      outputType: 'float32',
      outputComponents: bothComponents(headDim, valueDim),
      threads: gradientThreads,
      workgroups: owners * keyTiles,
      uniforms: {
        scale: {type: 'f32', value: scale},
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        owners: {type: 'i32', value: owners},
        queryOffset: {type: 'i32', value: queryOffset},
        ...(plan && {blockSize: {type: 'i32', value: blockSize}}),
      },
      variant: {
        tile,
        headDim,
        valueDim,
        causal,
        sparse: plan !== undefined,
        ...(mask && {mask: mask.dtype as 'bool' | 'float32'}),
      },
    });
  }

  protected shader({tile, headDim, valueDim, causal, sparse, mask}: GradientVariant): string {
    const {rows} = tile;
    return `
// A workgroup computes the gradients of tileKeys keys and of their values, of one owner. It walks over tiles of
// tileQueries query rows${sparse ? ' of the blocks in its list' : ' of all heads that share the keys'}: scores again, their weights times dy; gradients of the weights, the
// gradients of the scores times the queries.
//
// Invocation (x, y) computes the scores of keys y + r * 8 with query rows x + c * 8, and keeps, in registers, both sums of
// its keys for the vectors x + 8 * chunk of the head.
//
// Workgroup memory: ownedChunk and walkedChunk, 8 vectors of the keys and of the query rows at a time, for scores; of
// the rows' dy alone; of the values and of dy, for gradients of weights; at last of the query rows alone. weights, of a
// key in the query rows of an x: first those of attention, then the gradients of the scores.
${workgroupIndex}
${keyRow}
${gradientTile(tile, headDim, valueDim)}
${weightsMemory(tile)}
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${readRow('readValue', 'value', valueDim)}
${readRow('readDy', 'dy', valueDim)}
${writeGradient('writeKeyGradient', headDim, bothComponents(headDim, valueDim))}
${writeGradient('writeValueGradient', valueDim, bothComponents(headDim, valueDim))}

fn tilesIn(size : i32) -> i32 {
  return (size + tileKeys - 1) / tileKeys;
}
${mask ? `${maskedConstant}${maskScores(mask)}` : ''}
${sparse ? sparseQueryTiles : exactQueryTiles(causal)}

fn main(index : i32) {
${tilePlace}
  let heads = uniforms.queryShape.y;
  let length = uniforms.queryShape.z;
  let keyLength = uniforms.keyShape.z;
  let owners = uniforms.owners;
  let owner = workgroupIndex() % owners;
  // First keys first: under a causal mask they have most queries, and a long workgroup should not start last. Workgroups
  // beyond those asked for find no keys.
  let keyTile = workgroupIndex() / owners;
  let slots = keySlots(keyTile);
  // Query head that shares the keys, the first of them.
  let firstHead = owner * (uniforms.queryShape.x * heads / owners);
  let firstKeyRow = keyRow(firstHead, heads, 0);
  if (localIndex == 0u) {
    roundCount = select(0, countQueryTiles(owner, keyTile, slots.x), slots.x < slots.y);
  }
  if (i32(localIndex) < tileKeys) {
    var row = -1;
    if (slots.x + i32(localIndex) < slots.y) {
      row = firstKeyRow + keyPosition(owner, slots.x + i32(localIndex));
    }
    ownedRows[localIndex] = row;
  }
  // A barrier too: the rows are read by all, also where there is no round.
  let queryTiles = workgroupUniformLoad(&roundCount);

  var keyGradient = array<array<vec4<f32>, ${headChunks(headDim)}>, rows>();
  var valueGradient = array<array<vec4<f32>, ${headChunks(valueDim)}>, rows>();
  for (var t = 0; t < queryTiles; t++) {
    // 1. Which query rows: [queries.y, queries.z) of head queries.x.
    let queries = queryRows(owner, firstHead, keyTile, slots.x, t);
    let firstQueryRow = queries.x * length;
    if (i32(localIndex) < tileQueries) {
      let row = queries.y + i32(localIndex);
      walkedRows[localIndex] = select(-1, firstQueryRow + row, row < queries.z);
    }
    // Barrier: chunks are loaded by rows that others wrote.
    workgroupBarrier();

    // 2. Scores, and their weights: none where a row does not see a key. The initial values are needed: without them the
    // last round's stay.
    var scores = array<array<f32, rows>, rows>();
    ${addProducts(tile, 'head', 'scores', 'readKey', 'readQuery')}
    ${each(
      rows,
      (c) => `var delta${c} = 0.0;
    {
      let row = queries.y + x + ${8 * c};
      var logSum = 0.0;
      var last = -1;
      if (row < queries.z) {
        let at = ${statisticsValues} * (firstQueryRow + row);
        logSum = statistics[at];
        delta${c} = statistics[at + 1];
        last = i32(statistics[at + 2]);
      }
      ${mask ? 'let maskStart = maskRow(queries.x, row);' : ''}
      ${each(
        rows,
        (r) => `{
        let position = ownedRows[y + ${8 * r}] - firstKeyRow;
        let score = ${withMask({mask}, `uniforms.logitScale * scores[${r}][${c}]`, 'position')};
        scores[${r}][${c}] = select(0.0, exp2(score - logSum), ownedRows[y + ${8 * r}] >= 0 && position <= last);
      }`,
      )}
    }`,
    )}
    ${addWeighted(tile, 'value', valueDim, 'valueGradient', 'readDy', (r, c) => `scores[${r}][${c}]`)}

    // 3. Gradients of the weights, and of the scores.
    var products = array<array<f32, rows>, rows>();
    ${addProducts(tile, 'value', 'products', 'readValue', 'readDy')}
    ${addWeighted(
      tile,
      'head',
      headDim,
      'keyGradient',
      'readQuery',
      // A weight of 0 times a NaN of a row that does not see the key is a NaN.
      (r, c) => `select(0.0, scores[${r}][${c}] * (products[${r}][${c}] - delta${c}), scores[${r}][${c}] != 0.0)`,
    )}
  }

  let firstGradientRow = owner * keyLength - firstKeyRow;
  let firstValue = owners * keyLength * ${headDim};
  ${writeSums(
    tile,
    headDim,
    (r, vector, chunk) =>
      `if (ownedRows[y + ${8 * r}] >= 0) { writeKeyGradient(0, firstGradientRow + ownedRows[y + ${8 * r}], ${vector}, uniforms.scale * keyGradient[${r}][${chunk}]); }`,
  )}
  ${writeSums(
    tile,
    valueDim,
    (r, vector, chunk) =>
      `if (ownedRows[y + ${8 * r}] >= 0) { writeValueGradient(firstValue, firstGradientRow + ownedRows[y + ${8 * r}], ${vector}, valueGradient[${r}][${chunk}]); }`,
  )}
}`;
  }
}

/** Components in which rows of both can be written: both kinds start at a vec4, or neither is taken to. */
const bothComponents = (headDim: number, valueDim: number) =>
  rowComponents(headDim) === 4 ? rowComponents(valueDim) : 1;

/** A function that writes four values of a row, of the rows that start at value `first` of `result`. */
function writeGradient(name: string, dim: number, components: 1 | 4): string {
  const write = `fn ${name}(first : i32, row : i32, vector : i32, x : vec4<f32>)`;
  if (components === 4) {
    return `${write} { result[first / 4 + row * ${dim / 4} + vector] = x; }`;
  }
  return `${write} {
  for (var i = 0; i < min(4, ${dim} - 4 * vector); i++) {
    result[first + row * ${dim} + 4 * vector + i] = x[i];
  }
}`;
}

/** Keys of a workgroup, and the query rows that it walks over, where blocks have lists. A tile crosses no block's end. */
const sparseQueryTiles = `
// Slots [first, end) in the permuted order that a key tile covers.
fn keySlots(tile : i32) -> vec2<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize);
  let block = tile / tilesPerBlock;
  let first = block * uniforms.blockSize + (tile % tilesPerBlock) * tileKeys;
  return vec2<i32>(first, min(min(first + tileKeys, (block + 1) * uniforms.blockSize), uniforms.keyShape.z));
}

fn keyPosition(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + slot];
}

// Where the list of a key tile's block starts: its length, then its query blocks.
fn listStart(head : i32, tile : i32) -> i32 {
  let block = tile / tilesIn(uniforms.blockSize);
  return (head * uniforms.queryListsShape.z + block) * uniforms.queryListsShape.w;
}

fn countQueryTiles(head : i32, tile : i32, firstKey : i32) -> i32 {
  return queryLists[listStart(head, tile)] * tilesIn(uniforms.blockSize);
}

fn queryRows(head : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let tilesPerBlock = tilesIn(uniforms.blockSize);
  let block = queryLists[listStart(head, tile) + 1 + t / tilesPerBlock];
  let first = block * uniforms.blockSize + (t % tilesPerBlock) * tileQueries;
  let end = min((block + 1) * uniforms.blockSize, uniforms.queryShape.z);
  return vec3<i32>(head, first, min(first + tileQueries, end));
}`;

/** The same for exact attention: all queries from the first that may see a key of the tile. */
function exactQueryTiles(causal: boolean): string {
  return `
fn keySlots(tile : i32) -> vec2<i32> {
  return vec2<i32>(tile * tileKeys, min((tile + 1) * tileKeys, uniforms.keyShape.z));
}

fn keyPosition(owner : i32, slot : i32) -> i32 {
  return slot;
}

fn firstQueryTile(firstKey : i32) -> i32 {
  return ${causal ? 'min(max(firstKey - uniforms.queryOffset, 0) / tileQueries, tilesIn(uniforms.queryShape.z))' : '0'};
}

fn countQueryTiles(owner : i32, tile : i32, firstKey : i32) -> i32 {
  let sharing = uniforms.queryShape.x * uniforms.queryShape.y / uniforms.owners;
  return sharing * (tilesIn(uniforms.queryShape.z) - firstQueryTile(firstKey));
}

fn queryRows(owner : i32, firstHead : i32, tile : i32, firstKey : i32, t : i32) -> vec3<i32> {
  let ofHead = tilesIn(uniforms.queryShape.z) - firstQueryTile(firstKey);
  let first = (firstQueryTile(firstKey) + t % ofHead) * tileQueries;
  return vec3<i32>(firstHead + t / ofHead, first, min(first + tileQueries, uniforms.queryShape.z));
}`;
}
