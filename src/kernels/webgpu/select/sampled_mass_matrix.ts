import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {normaliserStride, sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import type {MatrixUnits} from '../runtime/device_features.js';
import {fragment, matrixUnitsOf} from '../runtime/device_features.js';
import {AttentionProgram} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {findSinkBlock, gridFunctions, gridVariant, scoringWork} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keyEnd, keysVariant} from '../wgsl/key_lengths.js';
import {fragmentTypes, matrixExtensions, paddedHeadDim} from '../wgsl/matrix_units.js';
import {atMost, logOfSum} from '../wgsl/not_finite.js';
import {headVectors, localOf, readRow, rowInputs, workgroupIndex} from '../wgsl/rows.js';
import {noScores} from '../wgsl/softmax_state.js';
import {sortedKeysBytes} from './sorted_keys.js';

/**
 * Subgroups a workgroup: the same phase of neighbouring blocks of queries, which meet the same keys at the same time. An
 * invocation owns one row of a phase.
 */
const subgroups = 2;
/** Invocations of a subgroup, whose shuffles add up its rows. */
const lanes = 32;
const threads = subgroups * lanes;
/** From one column of scores to the next: a multiple of 16 bytes that brings the parts of a fragment into different banks. */
const scoreStride = lanes + 4;
/** Keys of a step. */
const stepKeys = fragment;
const scoresOfSubgroup = stepKeys * scoreStride;
/** Blocks of keys whose shares wait in an invocation until they are summed over the rows together. */
const pendingBlocks = 4;
const queryStride = (headDim: number) => paddedHeadDim(headDim) + 8;

/** Workgroup memory that the program declares. */
const matrixBytes = (headDim: number) =>
  2 * lanes * queryStride(headDim) + 2 * 4 * subgroups * scoresOfSubgroup + 16 * subgroups + 32;

interface MatrixVariant extends KeysVariant, GridVariant {
  units: MatrixUnits;
  keyBlockSize: number;
  rowsOfPhase: number;
}

/** Rows of a phase, up to whole fragments. */
const phaseRows = ({blockSize, queryLength}: BlockGeometry) =>
  Math.ceil(Math.ceil(Math.min(blockSize, queryLength) / sampleStride) / fragment) * fragment;

/** The matrix units of a device, where its subgroups have as many invocations as the program shuffles. */
export const sampleUnits = (device: GPUDevice): MatrixUnits | undefined => matrixUnitsOf(device, lanes);

/**
 * Whether the device has matrix units and the memory, in workgroups and for the sorted keys in one binding, and the blocks are of
 * sizes that the program takes.
 */
export function sampledMassMatrixFits(device: GPUDevice, geometry: BlockGeometry): boolean {
  const {keyBlockSize, headDim} = geometry;
  const {maxStorageBufferBindingSize, maxBufferSize} = device.limits;
  const dividesTile = keyBlockSize % stepKeys === 0 && tileSlots % keyBlockSize === 0;
  return (
    sampleUnits(device) !== undefined &&
    sortedKeysBytes(geometry) <= Math.min(maxStorageBufferBindingSize, maxBufferSize) &&
    matrixBytes(headDim) <= device.limits.maxComputeWorkgroupStorageSize &&
    threads <= device.limits.maxComputeInvocationsPerWorkgroup &&
    phaseRows(geometry) <= lanes &&
    (dividesTile || keyBlockSize % tileSlots === 0)
  );
}

/**
 * Stage 2 by the sampled estimate, the same output as `SampledMassProgram`, in float16 with float32 sums on matrix units.
 *
 * One shader, longer than other files: its two walks over the keys share the rows' fragments and the scores' memory.
 *
 * @param keys the keys in sorted order, of `SortedKeysProgram`.
 */
export class SampledMassMatrixProgram extends AttentionProgram<MatrixVariant> {
  constructor(call: WebGPUCall, units: MatrixUnits, keys: TensorInfo, keyIndices: TensorInfo) {
    const {query, keyLengths, geometry} = call;
    const {batch, heads, keyBlockSize, queryBlocks, keyBlocks} = geometry;
    super({
      name: 'SampledMassMatrix',
      inputs: {...rowInputs({query}), keys: {tensor: keys, element: 'f16'}, keyIndices, keyLengths},
      outputShape: [batch * heads * queryBlocks, sampleStride, 2, keyBlocks],
      threads,
      workgroups: batch * heads * Math.ceil(queryBlocks / subgroups) * sampleStride,
      call,
      work: scoringWork(call),
      variant: {units, keyBlockSize, rowsOfPhase: phaseRows(geometry), ...keysVariant(call), ...gridVariant(call)},
      extensions: matrixExtensions,
    });
  }

  protected shader({units, headDim, keyBlockSize, rowsOfPhase, padded, ...grid}: MatrixVariant): string {
    const dim = paddedHeadDim(headDim);
    const vectors = headVectors(headDim);
    const paddedVectors = dim / 4;
    const {leftType, rightType, sumType} = fragmentTypes(units);
    const rowFragments = rowsOfPhase / units.rows;
    const keyFragments = stepKeys / units.columns;
    const headFragments = dim / units.depth;
    const stride = queryStride(headDim);
    const position = grid.offset ? 'uniforms.queryOffset + ' : '';
    const mask = sampleStride - 1;
    const runSlots = tileSlots * sampleStride;
    // Keys of a step in one block of keys, and the blocks of a tile; or the tiles of a block.
    const blockColumns = Math.min(stepKeys, keyBlockSize / sampleStride);
    const blocksOfTile = stepKeys / blockColumns;
    const tilesOfBlock = Math.max(1, keyBlockSize / tileSlots);
    const overBlocks = (value: (b: number) => string, combine: string) =>
      Array.from({length: subgroups}, (_, b) => value(b)).reduce((x, y) => `${combine}(${x}, ${y})`);
    const eachFragment = (text: (d: number, c: number) => string, separator?: string) =>
      unroll(headFragments, (d) => unroll(keyFragments, (c) => text(d, c), separator), separator);
    /** Where a fragment of a step begins: 16 values of each key stand together (`sorted_keys.ts`). */
    const offsetOf = (d: number, c: number) => {
      const value = d * units.depth;
      return (value - (value % fragment)) * stepKeys + (value % fragment) + c * units.columns * fragment;
    };
    const loadFragments = (name: string, tile: string, residue: string) => `{
        let at = firstKey + u32(${tile} * ${sampleStride} + ${residue}) * ${stepKeys * dim}u;
        ${eachFragment((d, c) => `${name}${d}_${c} = subgroupMatrixLoad<${rightType}, col_major>(&keys, at + ${offsetOf(d, c)}u, ${fragment}u);`)}
      }`;
    /**
     * A loop over steps of ${stepKeys} keys, `i` from 0 on: products of the subgroup's rows with them, the scores of the invocation's row
     * in `x0`, `x1`, …, then `use`. The keys of the next step are on their way meanwhile.
     */
    const overFragments = (count: string, tile: (i: string) => string, residue: (i: string) => string, use: string) => `
  if (${count} > 0) ${loadFragments('next', tile('0'), residue('0'))}
  for (var i = 0; i < ${count}; i++) {
    ${eachFragment((d, c) => `let keys${d}_${c} = next${d}_${c};`)}
    let following = min(i + 1, ${count} - 1);
    ${loadFragments('next', tile('following'), residue('following'))}
    ${unroll(rowFragments, (r) => unroll(keyFragments, (c) => `var scores${r}_${c} = ${sumType}();`))}
    ${eachFragment((d, c) => unroll(rowFragments, (r) => `scores${r}_${c} = subgroupMatrixMultiplyAccumulate(query${r}_${d}, keys${d}_${c}, scores${r}_${c});`))}
    ${unroll(rowFragments, (r) => unroll(keyFragments, (c) => `subgroupMatrixStore<col_major>(&scoreColumns, firstScore + ${r * units.rows + c * units.columns * scoreStride}u, scores${r}_${c}, ${scoreStride}u);`))}
    // Barrier: an invocation reads scores that all of its subgroup stored. The next ones go to the other half.
    workgroupBarrier();
    ${unroll(stepKeys, (c) => `let x${c} = scoreColumns[firstScore + u32(${c * scoreStride} + lane)];`)}
    firstScore = 2u * firstOfSubgroup + ${subgroups * scoresOfSubgroup}u - firstScore;
    ${use}
  }`;
    /** Halves of the pending blocks go to either half of the lanes, and again, until a lane has the rows of one block. */
    const overRows = (name: string, combine: (x: string, y: string) => string) => `
        let ${name}Pair = ${combine('select(pending.xy, pending.zw, secondPair)', 'subgroupShuffleXor(select(pending.zw, pending.xy, secondPair), 2u)')};
        var ${name} = ${combine(`select(${name}Pair.x, ${name}Pair.y, secondOfPair)`, `subgroupShuffleXor(select(${name}Pair.y, ${name}Pair.x, secondOfPair), 1u)`)};
        ${[4, 8, 16].map((distance) => `${name} = ${combine(name, `subgroupShuffleXor(${name}, ${distance}u)`)};`).join(' ')}`;
    /** Sums and maxima of the pending blocks, one of which is `block`; a lane keeps those of one of ${lanes} blocks. */
    const reducePending = `{${overRows('blockSum', (x, y) => `${x} + ${y}`)}${overRows('blockPeak', (x, y) => `max(${x}, ${y})`)}
        if (lane / ${pendingBlocks} == block % ${lanes} / ${pendingBlocks}) {
          ownSum = blockSum;
          ownPeak = blockPeak;
        }
      }`;
    /** Adds the scores that count to the row's normaliser. */
    const addToNormaliser = (counts: (c: number) => string, weight: string) => `
    ${unroll(stepKeys, (c) => `let s${c} = select(lowest, x${c}${weight}, ${counts(c)});`)}
    let newMax = max(rowMax, ${Array.from({length: stepKeys}, (_, c) => `s${c}`).reduce((x, y) => `max(${x}, ${y})`)});
    rowSum *= exp2(rowMax - newMax);
    ${unroll(stepKeys, (c) => `rowSum += select(exp2(s${c} - newMax), 0.0, s${c} == lowest);`)}
    rowMax = newMax;`;
    return `
// A workgroup takes one phase of ${subgroups} neighbouring blocks of queries, a subgroup the rows of one of them, one an invocation. It walks
// over the keys, ${stepKeys} a step, read from global memory. Products run on matrix units, float16 in, float32 sums. Who holds an
// element of a product is not known, so scores pass through workgroup memory, by columns, in a part for each subgroup and twice, so
// that one barrier a step is enough; an invocation reads the row that it owns.
//
// 1. Each row's normaliser, by an online softmax: one tile of each ${runSlots} slots, of which a row meets its phase; then the block of
//    key 0 and the own segments, of which it meets every key.
// 2. Each row's share of each block, from its phase of every tile that competes; sum and maximum over the rows by subgroup
//    operations, ${pendingBlocks} blocks at a time, which takes 3 shuffles a block where one block at a time takes 10. Every ${lanes} blocks the invocations write
//    one each.
const threads = ${threads};
${workgroupIndex}${noScores}
${gridFunctions(grid)}${keyEnd({padded})}${logOfSum}${atMost}
${readRow('readQuery', 'query', headDim)}
var<workgroup> queryRows : array<f16, ${lanes * stride}>;
var<workgroup> scoreColumns : array<f32, ${2 * subgroups * scoresOfSubgroup}>;
var<workgroup> sinkBlock : i32;
// Of each block of queries: slots [0, x) compete, slots [y, z) are of its own segments.
var<workgroup> spans : array<vec3<i32>, ${subgroups}>;

fn main(index : i32) {
  ${localOf(threads)}
  let subgroup = local / ${lanes};
  let lane = local % ${lanes};
  let allHeads = uniforms.batch * uniforms.heads;
  let keyLength = uniforms.keyLength;
  let phase = workgroupIndex() % ${sampleStride};
  let head = (workgroupIndex() / ${sampleStride}) % allHeads;
  // Last rows first: under a causal mask they see most keys, and a long workgroup should not start last.
  let groups = (uniforms.queryBlocks + ${subgroups - 1}) / ${subgroups};
  let firstBlock = (groups - 1 - workgroupIndex() / (${sampleStride} * allHeads)) * ${subgroups};
  let queryBlock = firstBlock + subgroup;
  let exists = queryBlock >= 0 && queryBlock < uniforms.queryBlocks;
  let end = keyEnd(head);
  let firstRow = queryBlock * uniforms.blockSize;
  let rows = select(0, min(uniforms.blockSize, uniforms.queryShape.z - firstRow), exists);
  // The row of the block that this invocation owns: the lane-th of its phase.
  let place = ${sampleStride} * lane + ((phase - lane) & ${mask});
  let owns = lane < ${rowsOfPhase} && place < rows;
  let lastVisible = ${grid.causal ? `min(end - 1, ${position}firstRow + place)` : 'end - 1'};
  let firstOfSubgroup = u32(subgroup * ${scoresOfSubgroup});
  var firstScore = firstOfSubgroup;
  let order = head * keyLength;
  let firstKey = u32(head * uniforms.keysShape.y) * ${dim}u;

  if (lane == 0) {
    let scored = scoredBlocks(queryBlock) * ${keyBlockSize};
    let seen = min(visibleBlocks(queryBlock) * ${keyBlockSize}, keyLength);
    spans[subgroup] = select(vec3<i32>(0), vec3<i32>(min(scored, end), scored, seen), exists && scored > 0);
  }${findSinkBlock('firstBlock >= 0')}
  // The loops hold barriers, so all invocations must agree on their length: hence the uniform loads.
  ${unroll(subgroups, (b) => `let span${b} = workgroupUniformLoad(&spans[${b}]);`)}
  let sink = workgroupUniformLoad(&sinkBlock);
  // A block of queries without earlier segments takes no part.
  let mostCompeting = ${overBlocks((b) => `span${b}.x`, 'max')};
  let endOwn = ${overBlocks((b) => `span${b}.z`, 'max')};
  let firstOwn = ${overBlocks((b) => `select(endOwn, span${b}.y, span${b}.x > 0)`, 'min')};
  let span = spans[subgroup];
  let competing = span.x;

  // Queries, by way of workgroup memory, into registers.
  ${unroll(rowFragments, (r) => unroll(headFragments, (d) => `var query${r}_${d} : ${leftType};`))}
  for (var b = 0; b < ${subgroups}; b++) {
    for (var i = local; i < ${lanes * paddedVectors}; i += threads) {
      let number = i / ${paddedVectors};
      let stagedPlace = ${sampleStride} * number + ((phase - number) & ${mask});
      let stagedRow = (firstBlock + b) * uniforms.blockSize + stagedPlace;
      var x = vec4<f32>(0.0);
      if (firstBlock >= 0 && stagedPlace < uniforms.blockSize && stagedRow < uniforms.queryShape.z && i % ${paddedVectors} < ${vectors}) {
        x = uniforms.logitScale * readQuery(head * uniforms.queryShape.z + stagedRow, i % ${paddedVectors});
      }
      let at = number * ${stride} + 4 * (i % ${paddedVectors});
      ${unroll(4, (c) => `queryRows[at + ${c}] = f16(x[${c}]);`, '\n      ')}
    }
    // Barrier: a subgroup reads rows that others loaded.
    workgroupBarrier();
    if (subgroup == b) {
      ${unroll(rowFragments, (r) => unroll(headFragments, (d) => `query${r}_${d} = subgroupMatrixLoad<${leftType}, row_major>(&queryRows, ${r * units.rows * stride + d * units.depth}u, ${stride}u);`))}
    }
    // Barrier: other rows replace these.
    workgroupBarrier();
  }
  ${eachFragment((d, c) => `var next${d}_${c} : ${rightType};`)}

  // 1. Normalisers: the coarse sample, less the block of key 0.
  let firstOfPhase = (${sampleStride} - phase) & ${mask};
  var rowMax = lowest;
  var rowSum = 0.0;
  let runs = (mostCompeting + ${runSlots - 1}) / ${runSlots};
  ${overFragments(
    'runs',
    (i) => `(${sampleStride} * ${i} + ((-phase - ${i}) & ${mask}))`,
    () => 'firstOfPhase',
    `let first = ${tileSlots} * (${sampleStride} * i + ((-phase - i) & ${mask})) + firstOfPhase;
    ${addToNormaliser((c) => `first + ${sampleStride * c} < competing && (first + ${sampleStride * c}) / ${keyBlockSize} != sink`, ` + ${Math.log2(normaliserStride).toFixed(1)}`)}`,
  )}
  // The tiles of the block of key 0 and of the own segments, every residue of their slots.
  let firstSinkTile = sink * ${keyBlockSize} / ${tileSlots};
  let sinkTiles = select(0, ${Math.max(1, keyBlockSize / tileSlots)}, mostCompeting > 0);
  let firstOwnTile = firstOwn / ${tileSlots};
  let ownTiles = select(0, (endOwn + ${tileSlots - 1}) / ${tileSlots} - firstOwnTile, mostCompeting > 0);
  let endSink = min(competing, (sink + 1) * ${keyBlockSize});
  let exactFragments = ${sampleStride} * (sinkTiles + ownTiles);
  ${overFragments(
    'exactFragments',
    (i) =>
      `select(firstOwnTile + ${i} / ${sampleStride} - sinkTiles, firstSinkTile + ${i} / ${sampleStride}, ${i} / ${sampleStride} < sinkTiles)`,
    (i) => `(${i} & ${mask})`,
    `let isSink = i / ${sampleStride} < sinkTiles;
    let first = ${tileSlots} * select(firstOwnTile + i / ${sampleStride} - sinkTiles, firstSinkTile + i / ${sampleStride}, isSink) + (i & ${mask});
    let slot = first + ${sampleStride} * (lane % ${stepKeys});
    let counts = slot >= select(span.y, sink * ${keyBlockSize}, isSink) && slot < select(span.z, endSink, isSink);
    let keyPosition = select(0x7fffffff, keyIndices[order + min(slot, keyLength - 1)], counts);
    ${addToNormaliser((c) => `subgroupShuffle(keyPosition, ${c}u) <= lastVisible`, '')}`,
  )}
  let logSum = rowMax + logOfSum(rowSum);

  // 2. Shares of the blocks.
  let results = ((head * uniforms.queryBlocks + queryBlock) * ${sampleStride} + phase) * 2 * uniforms.keyBlocks;
  var ownSum = 0.0;
  var ownPeak = 0.0;
  var pending = vec4<f32>(0.0);
  let secondPair = (lane & 2) != 0;
  let secondOfPair = (lane & 1) != 0;
  var share = 0.0;
  var block = 0;
  let tiles = (mostCompeting + ${tileSlots - 1}) / ${tileSlots};
  ${overFragments(
    'tiles',
    (i) => i,
    () => 'firstOfPhase',
    `let reach = competing - ${tileSlots} * i - firstOfPhase;
    let isWhole = reach > ${tileSlots - sampleStride};
    ${unroll(stepKeys, (c) => `let w${c} = select(0.0, exp2(x${c} - logSum), isWhole || ${sampleStride * c} < reach);`)}
    ${unroll(
      blocksOfTile,
      (b) => `share += ${Array.from({length: blockColumns}, (_, c) => `w${b * blockColumns + c}`).join(' + ')};
    ${tilesOfBlock > 1 ? `if ((i + 1) % ${tilesOfBlock} == 0 || i + 1 == tiles) ` : ''}{
      // Where a row's normaliser missed what it pays most to, a share can come out above 1. What is not finite stays so.
      let paid = select(0.0, atMost(${sampleStride}.0 * share, 1.0), owns);
      pending = vec4<f32>(pending.yzw, paid);
      if (block % ${pendingBlocks} == ${pendingBlocks - 1}) ${reducePending}
      block++;
      share = 0.0;
      let at = block - ${lanes} + lane;
      if (block % ${lanes} == 0 && exists && at < uniforms.keyBlocks) {
        result[results + at] = ownSum;
        result[results + uniforms.keyBlocks + at] = ownPeak;
      }
    }`,
      '\n    ',
    )}`,
  )}
  // The last blocks that compete, and zeros for those that do not.
  if (block % ${pendingBlocks} != 0) {
    for (var i = block % ${pendingBlocks}; i < ${pendingBlocks}; i++) {
      pending = vec4<f32>(pending.yzw, 0.0);
    }
    ${reducePending}
  }
  for (var i = block - block % ${lanes} + lane; exists && i < uniforms.keyBlocks; i += ${lanes}) {
    result[results + i] = select(0.0, ownSum, i < block);
    result[results + uniforms.keyBlocks + i] = select(0.0, ownPeak, i < block);
  }
}`;
  }
}
