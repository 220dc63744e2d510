import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {normaliserStride, sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import type {MatrixUnits} from '../runtime/device_features.js';
import {AttentionProgram, i32, withScratch} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {findSinkBlock, gridFunctions, gridVariant, scoringWork} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keysVariant} from '../wgsl/key_lengths.js';
import {atMost, logOfSum} from '../wgsl/not_finite.js';
import {positionOf} from '../wgsl/position_hooks.js';
import {rowInputs} from '../wgsl/rows.js';
import type {ScoreForm} from '../wgsl/score_hooks.js';
import {hookedScore, hookFunctions, hooksOfRow, scoreForm} from '../wgsl/score_hooks.js';
import {chooseScoreTile, scoreTile, scoreTileLoad} from '../wgsl/score_tile.js';
import {addScores, emptyRows, mergeParts} from '../wgsl/softmax_state.js';
import type {Tile} from '../wgsl/tile.js';
import {columnOf, invocationPlace, rowOf, tileKeys, tileQueries, tileThreads} from '../wgsl/tile.js';
import {SampledMassMatrixProgram, sampledMassMatrixFits, sampleUnits} from './sampled_mass_matrix.js';
import {sampledSlots} from './sampled_slots.js';
import {SortedKeysProgram} from './sorted_keys.js';

/**
 * Stage 2, score blocks, by the sampled estimate (`sampled_estimate.ts`): float32
 * `[batch * heads * queryBlocks, sampleStride, 2, keyBlocks]`. Of the rows of each phase of a query block, first the sum of what
 * they pay to each key block, then the most that one of them pays; 0 for blocks that do not compete. On matrix units where the
 * device has them and scores have no forms, whatever the precision of the call: the sample only chooses.
 */
export function sampledMass(
  call: WebGPUCall,
  keyIndices: TensorInfo,
  units: MatrixUnits | null = unitsFor(call),
): TensorInfo {
  const {backend, geometry} = call;
  if (units) {
    return withScratch(backend, (scratch) => {
      const keys = scratch(new SortedKeysProgram(call, keyIndices).run(backend));
      return new SampledMassMatrixProgram(call, units, keys, keyIndices).run(backend);
    });
  }
  const tile = chooseScoreTile(call, Math.max(leastRows, rowsOfPhase(geometry)));
  return new SampledMassProgram(call, keyIndices, tile).run(backend);
}

/** The matrix units that the program for them may run on. */
function unitsFor(call: WebGPUCall): MatrixUnits | null {
  const {backend, geometry} = call;
  const isPlain = Object.keys(scoreForm(call)).length === 0;
  return isPlain && sampledMassMatrixFits(backend.device, geometry) ? sampleUnits(backend.device)! : null;
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

interface SampledVariant extends KeysVariant, GridVariant, ScoreForm {
  tile: Tile;
  /** Key blocks whose samples stand side by side in a tile of keys; 1 where a block fills one or more. */
  blocksOfTile: number;
}

/** A power of two: each block has an equal part of the tile, at least two columns an invocation. */
function blocksOfTile(tile: Tile, keyBlockSize: number): number {
  const columnsOfBlock = Math.max(Math.ceil(keyBlockSize / sampleStride), 2 * tile.columns);
  return Math.max(1, 2 ** Math.floor(Math.log2(tileKeys(tile) / columnsOfBlock)));
}

/** Statements: what lies before the window is not met; and key 0 counts where it is in no row's. */
const startOfWindow = `let windowStart = slots.w;
  firstSlot = windowStart;
  let coarseStart = ${tileSlots / sampleStride} * (min(windowStart, slots.x) / ${tileSlots * sampleStride});
  firstCoarse = coarseStart;
  endSink = select(firstSink, endSink, seesFirstKey(queryBlock));
  `;
const zerosBeforeWindow = `  for (var i = local; i < firstSlot / uniforms.keyBlockSize && exists; i += threads) {
    result[results + i] = 0.0;
    result[results + uniforms.keyBlocks + i] = 0.0;
  }
`;
/** Expression: the last position that a row sees without a causal mask. */
const lastOfWindow = (row: string) => `${positionOf(row)} + uniforms.window - 1`;

/** One shader, longer than other files: its two walks over the keys share rows, tiles and what is left in registers. */
export class SampledMassProgram extends AttentionProgram<SampledVariant> {
  constructor(call: WebGPUCall, keyIndices: TensorInfo, tile: Tile) {
    const {query, key, keyLengths, headForms, mask, geometry} = call;
    const {batch, heads, keyBlockSize, queryBlocks} = geometry;
    const form = scoreForm(call);
    const blocks = blocksOfTile(tile, keyBlockSize);
    const tilesOfBlock = blocks > 1 ? 1 : Math.ceil(Math.ceil(keyBlockSize / sampleStride) / tileKeys(tile));
    super({
      name: 'SampledMass',
      inputs: {...rowInputs({query, key, ...(form.slopes && {headForms: headForms!})}), keyIndices, keyLengths, mask},
      outputShape: sampledMassShape(geometry),
      threads: tileThreads(tile),
      workgroups: batch * heads * queryBlocks * sampleStride,
      call,
      work: scoringWork(call),
      uniforms: {
        rowTiles: i32(Math.ceil(rowsOfPhase(geometry) / tileQueries(tile))),
        tilesOfBlock: i32(tilesOfBlock),
      },
      variant: {tile, blocksOfTile: blocks, ...keysVariant(call), ...gridVariant(call), ...form},
    });
  }

  protected shader({
    tile,
    blocksOfTile,
    causal,
    offset,
    softCap,
    slopes,
    window,
    mask,
    ...keys
  }: SampledVariant): string {
    const {headDim} = keys;
    const form: ScoreForm = {causal, softCap, slopes, window, mask};
    const isFormed = softCap || slopes || window || mask;
    const {rows, columns, threadsX} = tile;
    const queries = tileQueries(tile);
    const columnsOfBlock = tileKeys(tile) / blocksOfTile;
    // Columns of an invocation that are sure to lie in one block are added up in registers.
    const added = Math.max(1, Math.min(columns, columnsOfBlock / threadsX));
    const parts = tileKeys(tile) / added;
    const partsOfBlock = parts / blocksOfTile;
    const partStride = Math.max(parts, 2 * threadsX) | 1;
    const keyLoad = scoreTileLoad(tile, tileKeys(tile), headDim);
    const position = offset ? 'uniforms.queryOffset + ' : '';
    /** Walks over tiles of keys: those in the slots `slotOf(t, column)`, -1 for none. */
    const walk = (count: string, slotOf: string, afterStore: string, use: string) => {
      const find = (t: string) =>
        unroll(keyLoad.rounds, (j) => `positions[${j}] = keyIn(head, ${slotOf}(${t}, ${keyLoad.row(j)}));`, '\n      ');
      const fetch = keyLoad.fetch((j, vector) => `readKey(firstKeyRow + positions[${j}], ${vector})`);
      return `{
      ${find('0')}
      ${fetch}
      ${find('1')}
    }
    for (var t = 0; t < ${count}; t++) {
      ${keyLoad.store('keyTile', (j) => `fetched[${j}]`)}
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
${scoreTile(tile, keys)}${hookFunctions(form)}${gridFunctions({causal, offset, window})}${logOfSum}${atMost}
// Of a row: maxima and sums in each x; then what it pays to parts of the blocks of a tile.
var<workgroup> partials : array<f32, ${queries * partStride}>;
// What the rows pay to each block of a tile.
var<workgroup> shares : array<f32, ${blocksOfTile * queries}>;
var<workgroup> sinkBlock : i32;
// Slots [0, x) compete; slots from y on are of the own segments, up to z.${window ? ' Slots before w lie outside of the window.' : ''}
var<workgroup> span : vec${window ? 4 : 3}<i32>;

${sampledSlots(blocksOfTile, columnsOfBlock, window)}

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
  let allHeads = uniforms.batch * uniforms.heads;
  let head = workgroupIndex() % allHeads;
  phase = (workgroupIndex() / allHeads) % ${sampleStride};
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let queryBlock = uniforms.queryBlocks - 1 - workgroupIndex() / (allHeads * ${sampleStride});
  let exists = queryBlock >= 0;
  let firstRow = queryBlock * uniforms.blockSize;
  let rowCount = select(0, min(uniforms.blockSize, uniforms.queryLength - firstRow), exists);
  if (local == 0) {
    let end = keyEnd(head);
    let scored = scoredBlocks(queryBlock) * uniforms.keyBlockSize;
    let visible = visibleBlocks(queryBlock) * uniforms.keyBlockSize;
    span = select(vec${window ? 4 : 3}<i32>(0), vec${window ? 4 : 3}<i32>(min(scored, end), scored, min(visible, end)${window ? ', firstBlock(queryBlock) * uniforms.keyBlockSize' : ''}), exists);
  }${findSinkBlock('exists')}
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform loads, which are also the
  // barrier between writing and reading the sink block.
  let slots = workgroupUniformLoad(&span);
  competing = slots.x;
  firstOwn = slots.y;
  seen = slots.z;
  firstSink = workgroupUniformLoad(&sinkBlock) * uniforms.keyBlockSize;
  endSink = max(firstSink, min(firstSink + uniforms.keyBlockSize, competing));
  ${window ? startOfWindow : ''}let coarsePlaces = ${tileSlots / sampleStride} * ((slots.x + ${tileSlots * sampleStride - 1}) / ${tileSlots * sampleStride})${window ? ' - coarseStart' : ''};
  coarse = coarsePlaces;
  // Without a block that competes there is nothing to find out. The block of key 0 may have fewer slots than are counted.
  let places = coarsePlaces + uniforms.keyBlockSize + max(0, slots.z - slots.y);
  let normaliserTiles = select(0, (places + tileKeys - 1) / tileKeys, slots.x > ${window ? 'windowStart' : '0'});
  let blocks = (slots.x + uniforms.keyBlockSize - 1) / uniforms.keyBlockSize;
  let sampleTiles = ((${window ? 'max(0, blocks - windowStart / uniforms.keyBlockSize)' : 'blocks'} + ${blocksOfTile - 1}) / ${blocksOfTile}) * uniforms.tilesOfBlock;

  let results = ((head * uniforms.queryBlocks + queryBlock) * ${sampleStride} + phase) * 2 * uniforms.keyBlocks;
  for (var i = blocks + local; i < uniforms.keyBlocks && exists; i += threads) {
    result[results + i] = 0.0;
    result[results + uniforms.keyBlocks + i] = 0.0;
  }
${window ? zerosBeforeWindow : ''}  let firstKeyRow = keyRow(head, 0);
  var fetched : array<vec4<f32>, ${keyLoad.rounds}>;
  var positions : array<i32, ${keyLoad.rounds}>;

  for (var rowTile = 0; rowTile < uniforms.rowTiles; rowTile++) {
    let firstPlace = rowTile * tileQueries;
    ${scoreTileLoad(tile, queries, headDim).loadTile('queryTile', {
      exists: (row) => `rowOfPlace(firstPlace + ${row}) < rowCount`,
      read: (row, vector) =>
        `uniforms.logitScale * readQuery(head * uniforms.queryLength + firstRow + rowOfPlace(firstPlace + ${row}), ${vector})`,
    })}
    ${unroll(rows, (r) => `let row${r} = rowOfPlace(firstPlace + ${rowOf(r)});`)}

    // 1. log2 of the normalisers.
    ${emptyRows(tile)}
    ${walk(
      'normaliserTiles',
      'normaliserSlot',
      '',
      `${unroll(
        columns,
        (c) => `let slot${c} = normaliserSlot(t, ${columnOf(c)});
      // A sampled key stands for ${normaliserStride}. Of the own segments a row sees what its position lets it.
      let weight${c} = select(0.0, ${Math.log2(normaliserStride)}.0, t * tileKeys + ${columnOf(c)} < coarse);
      var position${c} = select(-1, 0x7fffffff, slot${c} < 0);
      if (slot${c} >= ${isFormed ? '0' : 'competing'}) {
        position${c} = keyIn(head, slot${c});
      }`,
        '\n      ',
      )}
      ${unroll(
        rows,
        (r) => `{
        ${hooksOfRow(form, 'head', `firstRow + row${r}`)
          .map((text) => `${text}\n        `)
          .join(
            '',
          )}let lastVisible = ${causal ? `${position}firstRow + row${r}` : window ? lastOfWindow(`firstRow + row${r}`) : '0x7ffffffe'};
        ${unroll(
          columns,
          (c) =>
            `scores[${r}][${c}] = select(${hookedScore(form, `scores[${r}][${c}]`, `position${c}`)} + weight${c}, masked, position${c} > lastVisible);`,
          '\n        ',
        )}
      }`,
        '\n      ',
      )}
      ${addScores(tile)}
      // Barrier: the next round overwrites the keys.
      workgroupBarrier();`,
    )}
    ${unroll(
      rows,
      (r) => `partials[(${rowOf(r)}) * ${partStride} + 2 * x] = rowMax[${r}];
    partials[(${rowOf(r)}) * ${partStride} + 2 * x + 1] = rowSum[${r}];`,
    )}
    // Barrier: the sum of a row needs the parts of all x.
    workgroupBarrier();
    ${unroll(
      rows,
      (r) => `var logSum${r} = lowest;
    {
      let first = (${rowOf(r)}) * ${partStride};
      ${mergeParts('threadsX', 'partials[first + 2 * i]', 'partials[first + 2 * i + 1]')}
      logSum${r} = select(total + logOfSum(sum), lowest, sum == 0.0);
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
      `${unroll(columns, (c) => `let isThere${c} = sampledSlot(t, ${columnOf(c)}) >= 0;${isFormed ? `\n      let position${c} = keyIn(head, sampledSlot(t, ${columnOf(c)}));` : ''}`, '\n      ')}
      ${unroll(
        rows,
        (r) => `{
        // Where a normaliser missed what its row pays most to, a share can come out above 1. What is not finite stays so.
        ${hooksOfRow(form, 'head', `firstRow + row${r}`)
          .map((text) => `${text}\n        `)
          .join('')}${unroll(
          columns,
          (c) => `let above${c} = ${hookedScore(form, `scores[${r}][${c}]`, `position${c}`)} - logSum${r};
        let paid${c} = select(0.0, exp2(select(above${c}, 0.0, above${c} > 0.0)), isThere${c} && row${r} < rowCount${window && !causal ? ` && position${c} <= ${lastOfWindow(`firstRow + row${r}`)}` : ''});`,
          '\n        ',
        )}
        ${unroll(
          columns / added,
          (part) =>
            `partials[(${rowOf(r)}) * ${partStride} + ${part} * threadsX + x] = ${unroll(added, (c) => `paid${part * added + c}`, ' + ')};`,
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
        shares[i] = atMost(${sampleStride}.0 * shareSoFar, 1.0);`
            : `shares[i] = atMost(${sampleStride}.0 * sum, 1.0);`
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
