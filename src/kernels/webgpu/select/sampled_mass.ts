import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {normaliserStride, sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import {AttentionProgram, i32, withScratch} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {findSinkBlock, gridFunctions, gridUniforms, gridVariant} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keyEnd, keyLengthsInput, keysVariant} from '../wgsl/key_lengths.js';
import {headVectors, keyRow, readRow, rowInput, workgroupIndex} from '../wgsl/rows.js';
import {carriedVectors, chooseScoreTile, loadTile, scoreTile} from '../wgsl/score_tile.js';
import {logitScale} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {invocationPlace, tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';
import {SampledMassMatrixProgram, sampledMassMatrixFits} from './sampled_mass_matrix.js';
import {SortedKeysProgram} from './sorted_keys.js';

/**
 * Stage 2, score blocks, by the sampled estimate (`sampled_estimate.ts`): float32
 * `[batch * heads * queryBlocks, sampleStride, 2, keyBlocks]`. Of the rows of each phase of a query block, first the sum of what
 * they pay to each key block, then the most that one of them pays; 0 for blocks that do not compete. On matrix units where the
 * device has them, whatever the precision of the call: the sample only chooses.
 */
export function sampledMass(
  call: WebGPUCall,
  keyIndices: TensorInfo,
  {onMatrixUnits}: {onMatrixUnits?: boolean} = {},
): TensorInfo {
  const {backend, geometry} = call;
  if (onMatrixUnits ?? sampledMassMatrixFits(backend.device, geometry)) {
    return withScratch(backend, (scratch) => {
      const keys = scratch(new SortedKeysProgram(call, keyIndices).run(backend));
      return new SampledMassMatrixProgram(call, keys, keyIndices).run(backend);
    });
  }
  const tile = chooseScoreTile(call, Math.max(leastRows, rowsOfPhase(geometry)));
  return new SampledMassProgram(call, keyIndices, tile).run(backend);
}

/** Shape of what `sampledMass` gives. */
export const sampledMassShape = ({batch, heads, queryBlocks, keyBlocks}: BlockGeometry): number[] => [
  batch * heads * queryBlocks,
  sampleStride,
  2,
  keyBlocks,
];

/** Most rows of a phase in a query block. */
const rowsOfPhase = ({blockSize, queryLength}: BlockGeometry) =>
  Math.ceil(Math.min(blockSize, queryLength) / sampleStride);
/** Tiles of fewer rows have too few invocations to be worth it where blocks are short. */
const leastRows = 16;

interface SampledVariant extends KeysVariant, GridVariant {
  tile: Tile;
  /** Key blocks whose samples stand side by side in a tile of keys; 1 where a block fills one or more. */
  blocksOfTile: number;
}

/** A power of two: each block has an equal part of the tile, at least two columns an invocation. */
function blocksOfTile(tile: Tile, keyBlockSize: number): number {
  const columnsOfBlock = Math.max(Math.ceil(keyBlockSize / sampleStride), 2 * tile.columns);
  return Math.max(1, 2 ** Math.floor(Math.log2(tileKeys(tile) / columnsOfBlock)));
}

export class SampledMassProgram extends AttentionProgram<SampledVariant> {
  constructor(call: WebGPUCall, keyIndices: TensorInfo, tile: Tile) {
    const {query, key, geometry} = call;
    const {batch, heads, keyBlockSize, queryBlocks} = geometry;
    const blocks = blocksOfTile(tile, keyBlockSize);
    const tilesOfBlock = blocks > 1 ? 1 : Math.ceil(Math.ceil(keyBlockSize / sampleStride) / tileKeys(tile));
    super({
      name: 'SampledMass',
      inputs: {
        query: rowInput(query),
        key: rowInput(key),
        keyIndices: {tensor: keyIndices},
        ...keyLengthsInput(call),
      },
      outputShape: sampledMassShape(geometry),
      threads: tileThreads(tile),
      workgroups: batch * heads * queryBlocks * sampleStride,
      uniforms: {
        ...gridUniforms(call),
        logitScale: logitScale(call),
        queryBlocks: i32(queryBlocks),
        rowTiles: i32(Math.ceil(rowsOfPhase(geometry) / tileQueries(tile))),
        tilesOfBlock: i32(tilesOfBlock),
      },
      variant: {tile, blocksOfTile: blocks, ...keysVariant(call), ...gridVariant(call)},
    });
  }

  protected shader({tile, headDim, padded, blocksOfTile, ...grid}: SampledVariant): string {
    const {rows, columns, threadsX} = tile;
    const queries = tileQueries(tile);
    const columnsOfBlock = tileKeys(tile) / blocksOfTile;
    // Columns of an invocation that are sure to lie in one block are added up in registers.
    const added = Math.max(1, Math.min(columns, columnsOfBlock / threadsX));
    const parts = tileKeys(tile) / added;
    const partsOfBlock = parts / blocksOfTile;
    const partStride = Math.max(parts, 2 * threadsX) | 1;
    const position = grid.offset ? 'uniforms.queryOffset + ' : '';
    const mask = sampleStride - 1;
    /** Walks over tiles of keys: those in the slots `slotOf(t, column)`, -1 for none. */
    const walk = (count: string, slotOf: string, afterStore: string, use: string) => {
      const rounds = carriedVectors(tile, headDim);
      const isWhole = (k: number) => tileKeys(tile) * headVectors(headDim) >= (k + 1) * tileThreads(tile);
      const find = (t: string) =>
        unroll(
          rounds,
          (k) => `positions[${k}] = keyIn(head, ${slotOf}(${t}, (local + ${k} * threads) / headVectors));`,
          '\n      ',
        );
      const fetch = unroll(
        rounds,
        (k) => `carried[${k}] = readKey(firstKeyRow + positions[${k}], (local + ${k} * threads) % headVectors);`,
        '\n      ',
      );
      return `{
      ${find('0')}
      ${fetch}
      ${find('1')}
    }
    for (var t = 0; t < ${count}; t++) {
      ${unroll(
        rounds,
        (k) => `${isWhole(k) ? '' : `if (local + ${k} * threads < ${tileKeys(tile) * headVectors(headDim)}) `}{
        let at = local + ${k} * threads;
        keyTile[(at / headVectors) * tileStride + at % headVectors] = carried[${k}];
      }`,
        '\n      ',
      )}
      // Barrier: scores read rows that others loaded.
      workgroupBarrier();
      ${fetch}
      ${find('t + 2')}
      ${afterStore}
      var scores = tileScores(x, y);
      ${use}
    }`;
    };
    return `
// A workgroup takes the rows of one phase of a query block, in tiles of tileQueries, and walks over tiles of tileKeys keys, twice:
// for the normaliser of each row, and over the phase's sample for what the rows pay to each block.
//
// Invocation (x, y) keeps, in registers, maximum and sum of its rows over its own columns; they are combined over x in workgroup
// memory. What a row pays to a block is added up over x there, too, and then the rows of a block.
//
// Keys are read ahead into registers, and where they stand one tile before that.
${workgroupIndex}
${keyRow}${gridFunctions(grid)}${padded ? keyEnd('uniforms.queryShape.y', 'uniforms.keyShape.z') : ''}
${scoreTile(tile, headDim)}
${readRow('readKey', 'key', headDim)}
// Of a row: maxima and sums in each x; then what it pays to parts of the blocks of a tile.
var<workgroup> partials : array<f32, ${queries * partStride}>;
// What the rows pay to each block of a tile.
var<workgroup> shares : array<f32, ${blocksOfTile * queries}>;
var<workgroup> sinkBlock : i32;
// Slots [0, x) compete; slots from y on are of the own segments, up to z.
var<workgroup> span : vec3<i32>;

// The same for all invocations of the workgroup.
var<private> phase : i32;
// Slots that compete, and those of the own segments; the slots of the block of key 0; and how many sample the others.
var<private> competing : i32;
var<private> firstOwn : i32;
var<private> seen : i32;
var<private> firstSink : i32;
var<private> endSink : i32;
var<private> coarse : i32;

// The place-th row of the phase in a query block.
fn rowOfPlace(place : i32) -> i32 {
  return ${sampleStride} * place + ((phase - place) & ${mask});
}

// Original index of the key in a slot; of some key where there is none.
fn keyIn(head : i32, slot : i32) -> i32 {
  return keyIndices[head * uniforms.keyShape.z + max(slot, 0)];
}

// Slots of the normaliser: those of one tile of four of the sample, by turns, then the block of key 0, then the own segments.
fn normaliserSlot(t : i32, column : i32) -> i32 {
  let place = t * tileKeys + column;
  if (place < coarse) {
    let run = place / ${tileSlots / sampleStride};
    let tile = ${sampleStride} * run + ((-phase - run) & ${mask});
    let slot = ${tileSlots} * tile + ${sampleStride} * (place % ${tileSlots / sampleStride}) + (-phase & ${mask});
    return select(slot, -1, slot >= competing || (slot >= firstSink && slot < endSink));
  }
  let inSink = firstSink + place - coarse;
  if (inSink < endSink) {
    return inSink;
  }
  let slot = firstOwn + inSink - endSink;
  return select(-1, slot, slot < seen);
}

// The block of a column of the sample, and its slot.
fn sampledBlock(t : i32, column : i32) -> i32 {
  return (t / uniforms.tilesOfBlock) * ${blocksOfTile} + column / ${columnsOfBlock};
}
fn sampledSlot(t : i32, column : i32) -> i32 {
  let first = sampledBlock(t, column) * uniforms.keyBlockSize;
  let place = (t % uniforms.tilesOfBlock) * tileKeys + column % ${columnsOfBlock};
  let slot = first + (-(phase + first) & ${mask}) + ${sampleStride} * place;
  return select(-1, slot, slot < min(first + uniforms.keyBlockSize, competing));
}

// Adds the shares of a block's rows to the result. The same invocation has a block in every tile of rows.
fn addShares(results : i32, t : i32, rowTile : i32) {
  let block = sampledBlock(t, 0) + i32(localIndex);
  let isLast = (t + 1) % uniforms.tilesOfBlock == 0;
  if (t >= 0 && isLast && i32(localIndex) < ${blocksOfTile} && block * uniforms.keyBlockSize < competing) {
    var sum = 0.0;
    var peak = 0.0;
    for (var i = 0; i < tileQueries; i++) {
      let share = shares[i32(localIndex) * tileQueries + i];
      sum += share;
      peak = max(peak, share);
    }
    let at = results + block;
    if (rowTile > 0) {
      sum += result[at];
      peak = max(peak, result[at + uniforms.keyBlocks]);
    }
    result[at] = sum;
    result[at + uniforms.keyBlocks] = peak;
  }
}

fn main(index : i32) {
${invocationPlace(tile)}
  let allHeads = uniforms.queryShape.x * uniforms.queryShape.y;
  let length = uniforms.queryShape.z;
  let head = workgroupIndex() % allHeads;
  phase = (workgroupIndex() / allHeads) % ${sampleStride};
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let queryBlock = uniforms.queryBlocks - 1 - workgroupIndex() / (allHeads * ${sampleStride});
  let exists = queryBlock >= 0;
  let firstRow = queryBlock * uniforms.blockSize;
  let rowCount = select(0, min(uniforms.blockSize, length - firstRow), exists);
  if (local == 0) {
    let end = ${padded ? 'keyEnd(head)' : 'uniforms.keyShape.z'};
    let scored = scoredBlocks(queryBlock) * uniforms.keyBlockSize;
    let visible = visibleBlocks(queryBlock) * uniforms.keyBlockSize;
    span = select(vec3<i32>(0), vec3<i32>(min(scored, end), scored, min(visible, end)), exists);
  }${findSinkBlock('uniforms.keyShape.z', 'exists')}
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform loads, which are also the
  // barrier between writing and reading the sink block.
  let slots = workgroupUniformLoad(&span);
  competing = slots.x;
  firstOwn = slots.y;
  seen = slots.z;
  firstSink = workgroupUniformLoad(&sinkBlock) * uniforms.keyBlockSize;
  endSink = max(firstSink, min(firstSink + uniforms.keyBlockSize, competing));
  let coarsePlaces = ${tileSlots / sampleStride} * ((slots.x + ${tileSlots * sampleStride - 1}) / ${tileSlots * sampleStride});
  coarse = coarsePlaces;
  // Without a block that competes there is nothing to find out. The block of key 0 may have fewer slots than are counted.
  let places = coarsePlaces + uniforms.keyBlockSize + max(0, slots.z - slots.y);
  let normaliserTiles = select(0, (places + tileKeys - 1) / tileKeys, slots.x > 0);
  let blocks = (slots.x + uniforms.keyBlockSize - 1) / uniforms.keyBlockSize;
  let sampleTiles = ((blocks + ${blocksOfTile - 1}) / ${blocksOfTile}) * uniforms.tilesOfBlock;

  let results = ((head * uniforms.queryBlocks + queryBlock) * ${sampleStride} + phase) * 2 * uniforms.keyBlocks;
  for (var i = blocks + local; i < uniforms.keyBlocks && exists; i += threads) {
    result[results + i] = 0.0;
    result[results + uniforms.keyBlocks + i] = 0.0;
  }
  let firstKeyRow = keyRow(head, uniforms.queryShape.y, 0);
  var carried : array<vec4<f32>, ${carriedVectors(tile, headDim)}>;
  var positions : array<i32, ${carriedVectors(tile, headDim)}>;

  for (var rowTile = 0; rowTile < uniforms.rowTiles; rowTile++) {
    let firstPlace = rowTile * tileQueries;
    ${loadTile(
      'queryTile',
      queries,
      tile,
      headDim,
      (i) => `rowOfPlace(firstPlace + ${i}) < rowCount`,
      (i, vector) =>
        `uniforms.logitScale * readQuery(head * length + firstRow + rowOfPlace(firstPlace + ${i}), ${vector})`,
    )}
    ${unroll(rows, (r) => `let row${r} = rowOfPlace(firstPlace + y + ${r} * threadsY);`)}

    // 1. log2 of the normalisers.
    var rowMax = vec${rows}<f32>(lowest);
    var rowSum = vec${rows}<f32>(0.0);
    ${walk(
      'normaliserTiles',
      'normaliserSlot',
      '',
      `${unroll(
        columns,
        (c) => `let slot${c} = normaliserSlot(t, x + ${c} * threadsX);
      // A sampled key stands for ${normaliserStride}. Of the own segments a row sees what its position lets it.
      let weight${c} = select(0.0, ${Math.log2(normaliserStride)}.0, t * tileKeys + x + ${c} * threadsX < coarse);
      var position${c} = select(-1, 0x7fffffff, slot${c} < 0);
      if (slot${c} >= competing) {
        position${c} = keyIn(head, slot${c});
      }`,
        '\n      ',
      )}
      ${unroll(
        rows,
        (r) => `{
        let lastVisible = ${grid.causal ? `${position}firstRow + row${r}` : '0x7ffffffe'};
        var newMax = rowMax[${r}];
        ${unroll(
          columns,
          (c) => `scores[${r}][${c}] = select(scores[${r}][${c}] + weight${c}, masked, position${c} > lastVisible);
        newMax = max(newMax, scores[${r}][${c}]);`,
          '\n        ',
        )}
        rowSum[${r}] = fma(rowSum[${r}], exp2(rowMax[${r}] - newMax), ${unroll(columns, (c) => `exp2(scores[${r}][${c}] - newMax)`, ' + ')});
        rowMax[${r}] = newMax;
      }`,
        '\n      ',
      )}
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();`,
    )}
    ${unroll(
      rows,
      (r) => `partials[(y + ${r} * threadsY) * ${partStride} + 2 * x] = rowMax[${r}];
    partials[(y + ${r} * threadsY) * ${partStride} + 2 * x + 1] = rowSum[${r}];`,
    )}
    // Barrier: the sum of a row needs the parts of all x.
    workgroupBarrier();
    ${unroll(
      rows,
      (r) => `var logSum${r} = lowest;
    {
      let first = (y + ${r} * threadsY) * ${partStride};
      for (var i = 0; i < threadsX; i++) {
        logSum${r} = max(logSum${r}, partials[first + 2 * i]);
      }
      var sum = 0.0;
      for (var i = 0; i < threadsX; i++) {
        sum += partials[first + 2 * i + 1] * exp2(partials[first + 2 * i] - logSum${r});
      }
      logSum${r} = select(logSum${r} + log2(sum), lowest, sum == 0.0);
    }`,
    )}

    // 2. What the rows pay to each block, of which the keys of the sample pay 1 / ${sampleStride}.${
      blocksOfTile === 1
        ? `
    var shareSoFar = 0.0;`
        : ''
    }
    ${walk(
      'sampleTiles',
      'sampledSlot',
      'addShares(results, t - 1, rowTile);',
      `${unroll(columns, (c) => `let isThere${c} = sampledSlot(t, x + ${c} * threadsX) >= 0;`, '\n      ')}
      ${unroll(
        rows,
        (r) => `{
        // Where a normaliser missed what its row pays most to, a share can come out above 1.
        ${unroll(columns, (c) => `let paid${c} = select(0.0, exp2(min(scores[${r}][${c}] - logSum${r}, 0.0)), isThere${c} && row${r} < rowCount);`, '\n        ')}
        ${unroll(
          columns / added,
          (part) =>
            `partials[(y + ${r} * threadsY) * ${partStride} + ${part} * threadsX + x] = ${unroll(added, (c) => `paid${part * added + c}`, ' + ')};`,
          '\n        ',
        )}
      }`,
        '\n      ',
      )}
      // Barrier: the share of a row needs the parts of all x; and no key is read any more.
      workgroupBarrier();
      for (var i = local; i < ${blocksOfTile} * tileQueries; i += threads) {
        let first = (i % tileQueries) * ${partStride} + (i / tileQueries) * ${partsOfBlock};
        var sum = 0.0;
        ${unroll(partsOfBlock, (part) => `sum += partials[first + ${part}];`, '\n        ')}
        ${
          blocksOfTile === 1
            ? `// There are at least as many invocations as rows, so that each has one.
        shareSoFar = sum + select(shareSoFar, 0.0, t % uniforms.tilesOfBlock == 0);
        shares[i] = min(1.0, ${sampleStride}.0 * shareSoFar);`
            : `shares[i] = min(1.0, ${sampleStride}.0 * sum);`
        }
      }`,
    )}
    // Barrier: the last shares are read where others wrote them; and the next rows replace these.
    workgroupBarrier();
    addShares(results, sampleTiles - 1, rowTile);
    // Barrier: the next tiles overwrite the shares.
    workgroupBarrier();
  }
}`;
  }
}
