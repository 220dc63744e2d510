import type {TensorInfo} from '@tensorflow/tfjs-core';
import {summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {mostOwnBlocks} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {GridVariant} from './block_grid.js';
import {gridFunctions, gridUniforms, gridVariant} from './block_grid.js';
import {keyEnd, keyLengthsInput} from './key_lengths.js';
import {AttentionProgram, headVectors, keyRow, readRow, rowComponents, workgroupIndex} from './program.js';
import type {Tile} from './tile.js';
import {carriedVectors, invocationPlace, loadTile, scoreTile, tileKeys, tileQueries, tileThreads} from './tile.js';

/** Most keys that a workgroup walks over: enough to load its rows once for many. */
const mostKeys = 1024;
/** The same for given rows, which meet all keys: fewer in a short sequence, so that it still makes many workgroups. */
const keysPerWorkgroup = ({keyLength}: BlockGeometry) => Math.min(mostKeys, Math.max(256, keyLength / 16));

interface LogSumVariant extends GridVariant {
  tile: Tile;
  headDim: number;
  padded: boolean;
  /** Whether rows are the evenly spaced ones and keys those of their own segment; else given rows, and all visible keys. */
  ownSegment: boolean;
}

/**
 * Part of stage 2: log2 of what some rows of each query block pay to each key block, Σ exp2(score) over the keys of the block
 * that the row may see; about −3.4e38 where there are none. float32
 *
 * - `[batch * heads, queryBlocks * rows, keyBlocks]` for given rows; written for the visible blocks of a query block alone;
 * - `[batch * heads, queryBlocks * summaryRows, mostOwnBlocks]` without, for evenly spaced rows (`block_estimate.ts`), of
 *   their blocks that do not compete, from the first of them on.
 *
 * @param probes int32 `[batch, heads, queryBlocks, rows]`.
 */
export class BlockLogSumsProgram extends AttentionProgram<LogSumVariant> {
  constructor(
    query: TensorInfo,
    key: TensorInfo,
    keyIndices: TensorInfo,
    geometry: BlockGeometry,
    tile: Tile,
    scale: number,
    causal: boolean,
    probes?: TensorInfo,
    keyLengths?: TensorInfo,
  ) {
    const {batch, heads, headDim, blockSize, queryBlocks, keyBlocks} = geometry;
    const components = rowComponents(headDim);
    const grid = gridVariant(geometry, causal);
    const rowsPerBlock = probes ? probes.shape[3] : summaryRows;
    const outputBlocks = probes ? keyBlocks : mostOwnBlocks(geometry, causal);
    const rowTiles = Math.ceil((queryBlocks * rowsPerBlock) / tileQueries(tile));
    const blocksPerWorkgroup = Math.max(1, Math.floor((probes ? keysPerWorkgroup(geometry) : mostKeys) / blockSize));
    // The rows of a tile belong to so many query blocks at the most, from a segment's first key to another's last.
    const queryBlocksOfTile = Math.ceil(tileQueries(tile) / rowsPerBlock) + 1;
    const blocksOfTile = probes ? keyBlocks : queryBlocksOfTile + (2 * geometry.segmentSize) / blockSize;
    const parts = Math.ceil(Math.min(blocksOfTile, keyBlocks) / blocksPerWorkgroup);
    super({
      inputs: {
        query: {tensor: query, components},
        key: {tensor: key, components},
        keyIndices: {tensor: keyIndices, components: 1},
        ...(probes && {probes: {tensor: probes, components: 1}}),
        ...keyLengthsInput(keyLengths),
      },
      outputShape: [batch * heads, queryBlocks * rowsPerBlock, outputBlocks],
      outputType: 'float32',
      threads: tileThreads(tile),
      workgroups: batch * heads * rowTiles * parts,
      uniforms: {
        ...gridUniforms(geometry, grid),
        keyBlocks: {type: 'i32', value: keyBlocks},
        logitScale: {type: 'f32', value: scale * Math.LOG2E},
        rowsPerBlock: {type: 'i32', value: rowsPerBlock},
        rowTiles: {type: 'i32', value: rowTiles},
        blocksPerWorkgroup: {type: 'i32', value: blocksPerWorkgroup},
        parts: {type: 'i32', value: parts},
      },
      variant: {tile, headDim, padded: keyLengths !== undefined, ownSegment: probes === undefined, ...grid},
    });
  }

  protected shader({tile, headDim, padded, ownSegment, ...grid}: LogSumVariant): string {
    const position = grid.offset ? 'uniforms.queryOffset + ' : '';
    const vectors = headVectors(headDim);
    const rounds = carriedVectors(tile, headDim);
    const isWhole = (k: number) => tileKeys(tile) * vectors >= (k + 1) * tileThreads(tile);
    const carry = each(
      rounds,
      (k) => `carried[${k}] = readKey(firstKeyRow + positions[${k}], (local + ${k} * threads) % headVectors);`,
    );
    return `
// A workgroup takes tileQueries of the chosen rows of one head, which can belong to several query blocks, and some key
// blocks, over which it walks in tiles of tileKeys keys. Invocation (x, y) keeps, in registers, maximum and sum of its rows
// over its own columns; at the end of each key block they are combined over x, in workgroup memory.
${workgroupIndex}
${keyRow}${gridFunctions(grid)}${padded ? keyEnd('uniforms.queryShape.y', 'uniforms.keyShape.z') : ''}
${scoreTile(tile, headDim)}
${readRow('readKey', 'key', headDim)}
// Query rows of the tile, -1 past the last; the last key position that each may see.
var<workgroup> rowsOfTile : array<i32, tileQueries>;
var<workgroup> partialMax : array<f32, ${tileQueries(tile) * tile.threadsX}>;
var<workgroup> partialSum : array<f32, ${tileQueries(tile) * tile.threadsX}>;
// Key blocks [x, y) of this workgroup.
var<workgroup> span : vec2<i32>;

fn loadChosenRows(head : i32) {
  ${loadTile(
    'queryTile',
    tileQueries(tile),
    tile,
    headDim,
    (i) => `rowsOfTile[${i}] >= 0`,
    (i, vector) => `uniforms.logitScale * readQuery(head * uniforms.queryShape.z + rowsOfTile[${i}], ${vector})`,
  )}
}

// Slots [first, end) of the permuted order that tile t covers, of the tiles of some blocks from firstBlock on.
fn slotsOf(firstBlock : i32, t : i32) -> vec2<i32> {
  let tilesPerBlock = (uniforms.blockSize + tileKeys - 1) / tileKeys;
  let first = (firstBlock + t / tilesPerBlock) * uniforms.blockSize;
  let end = min(first + uniforms.blockSize, uniforms.keyShape.z);
  let start = first + (t % tilesPerBlock) * tileKeys;
  return vec2<i32>(start, min(start + tileKeys, end));
}

// Position of the key in a slot of a tile; that of the last key in its place where there is none.
fn positionIn(head : i32, slots : vec2<i32>, slot : i32) -> i32 {
  let last = uniforms.keyShape.z - 1;
  return keyIndices[head * (last + 1) + clamp(slots.x + slot, 0, last)];
}

fn main(index : i32) {
${invocationPlace(tile)}
  let chosenRows = uniforms.outShape.y;
  let part = workgroupIndex() % uniforms.parts;
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let rowTile = uniforms.rowTiles - 1 - (workgroupIndex() / uniforms.parts) % uniforms.rowTiles;
  let head = workgroupIndex() / (uniforms.parts * uniforms.rowTiles);
  let exists = head < uniforms.outShape.x;
  let firstChosen = rowTile * tileQueries;
  let endChosen = select(firstChosen, min(firstChosen + tileQueries, chosenRows), exists);
  for (var i = local; i < tileQueries; i += threads) {
    var row = -1;
    if (firstChosen + i < endChosen) {
      ${
        ownSegment
          ? `let first = ((firstChosen + i) / uniforms.rowsPerBlock) * uniforms.blockSize;
      let rows = min(uniforms.blockSize, uniforms.queryShape.z - first);
      let place = (firstChosen + i) % uniforms.rowsPerBlock;
      row = first + max(0, ((place + 1) * rows) / uniforms.rowsPerBlock - 1);`
          : 'row = probes[head * chosenRows + firstChosen + i];'
      }
    }
    rowsOfTile[i] = row;
  }
  if (local == 0) {
    let firstBlock = ${ownSegment ? 'scoredBlocks(firstChosen / uniforms.rowsPerBlock)' : '0'} + part * uniforms.blocksPerWorkgroup;
    let endBlock = min(firstBlock + uniforms.blocksPerWorkgroup, visibleBlocks((endChosen - 1) / uniforms.rowsPerBlock));
    span = vec2<i32>(firstBlock, select(firstBlock, endBlock, firstChosen < endChosen));
  }
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform load, which is also the
  // barrier between writing and reading the rows.
  let blocks = workgroupUniformLoad(&span);
  loadChosenRows(head);
  let end = ${padded ? 'keyEnd(head)' : 'uniforms.keyShape.z'};
  var lastVisible : array<i32, rows>;
  for (var r = 0; r < rows; r++) {
    lastVisible[r] = ${grid.causal ? `min(end - 1, ${position}rowsOfTile[y + r * threadsY])` : 'end - 1'};
  }

  // What this invocation carries from global memory to keyTile, and the positions in which it stands: read ahead, positions
  // by two tiles and keys by one, so that a load has a round to arrive.
  let tilesPerBlock = (uniforms.blockSize + tileKeys - 1) / tileKeys;
  let firstKeyRow = keyRow(head, uniforms.queryShape.y, 0);
  var carried : array<vec4<f32>, ${rounds}>;
  var positions : array<i32, ${rounds}>;
  ${each(rounds, (k) => `positions[${k}] = positionIn(head, slotsOf(blocks.x, 0), (local + ${k} * threads) / headVectors);`)}
  ${carry}
  ${each(rounds, (k) => `positions[${k}] = positionIn(head, slotsOf(blocks.x, 1), (local + ${k} * threads) / headVectors);`)}
  // In blocks that compete for all query blocks of the tile, every row sees every key that is not padding.
  let open = ${padded ? 'min(scoredBlocks(firstChosen / uniforms.rowsPerBlock), end / uniforms.blockSize)' : 'scoredBlocks(firstChosen / uniforms.rowsPerBlock)'};

  for (var block = blocks.x; block < blocks.y; block++) {
    var rowMax = array<f32, rows>();
    var rowSum = array<f32, rows>();
    for (var r = 0; r < rows; r++) {
      rowMax[r] = masked;
    }
    for (var tile = 0; tile < tilesPerBlock; tile++) {
      let t = (block - blocks.x) * tilesPerBlock + tile;
      ${each(
        rounds,
        (k) => `${isWhole(k) ? '' : `if (local + ${k} * threads < ${tileKeys(tile) * vectors}) `}{
        let at = local + ${k} * threads;
        keyTile[(at / headVectors) * rowStride + at % headVectors] = carried[${k}];
      }`,
        '\n      ',
      )}
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      ${carry}
      ${each(rounds, (k) => `positions[${k}] = positionIn(head, slotsOf(blocks.x, t + 2), (local + ${k} * threads) / headVectors);`, '\n      ')}
      var scores = tileScores(x, y);
      let slots = slotsOf(blocks.x, t);
      if (block >= open || slots.y - slots.x < tileKeys) {
        for (var c = 0; c < columns; c++) {
          let slot = x + c * threadsX;
          let position = select(0x7fffffff, positionIn(head, slots, slot), slots.x + slot < slots.y);
          for (var r = 0; r < rows; r++) {
            scores[r][c] = select(scores[r][c], masked, position > lastVisible[r]);
          }
        }
      }
      for (var r = 0; r < rows; r++) {
        var newMax = max(rowMax[r], lowest);
        ${each(tile.columns, (c) => `newMax = max(newMax, scores[r][${c}]);`, '\n        ')}
        rowSum[r] = rowSum[r] * exp2(rowMax[r] - newMax) + ${Array.from({length: tile.columns}, (_, c) => `exp2(scores[r][${c}] - newMax)`).join(' + ')};
        rowMax[r] = newMax;
      }
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();
    }
    for (var r = 0; r < rows; r++) {
      partialMax[(y + r * threadsY) * threadsX + x] = rowMax[r];
      partialSum[(y + r * threadsY) * threadsX + x] = rowSum[r];
    }
    // Barrier: a row's sum needs the parts of all x. (The next block's parts come after the barriers of its tiles.)
    workgroupBarrier();
    for (var i = local; i < tileQueries; i += threads) {
      var total = masked;
      for (var j = 0; j < threadsX; j++) {
        total = max(total, partialMax[i * threadsX + j]);
      }
      var sum = 0.0;
      for (var j = 0; j < threadsX; j++) {
        sum += partialSum[i * threadsX + j] * exp2(partialMax[i * threadsX + j] - total);
      }
      let chosen = firstChosen + i;
      ${ownSegment ? 'let column = block - scoredBlocks(chosen / uniforms.rowsPerBlock);' : 'let column = block;'}
      if (chosen < endChosen && column >= 0 && column < uniforms.outShape.z) {
        result[(head * chosenRows + chosen) * uniforms.outShape.z + column] = select(total + log2(sum), masked, sum == 0.0);
      }
    }
  }
}`;
  }
}
