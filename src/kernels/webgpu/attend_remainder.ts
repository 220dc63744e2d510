import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
import type {Take} from '../scratch.js';
import {each} from '../shader_text.js';
import type {BlockPlan} from './attend_walk.js';
import type {GridVariant} from './block_grid.js';
import {gridFunctions, gridUniforms, gridVariant} from './block_grid.js';
import {keyEnd, keyLengthsInput} from './key_lengths.js';
import {AttentionProgram, headVectors, readRow, rowComponents, withScratch, workgroupIndex} from './program.js';
import {noScores, stateVectors} from './softmax_state.js';
import {SummarizeBlocksProgram} from './summarize_blocks.js';
import {summaryScore, summaryUniforms} from './summary_score.js';

/**
 * Part of stage 4, before the blocks of the lists: what each query row pays to the blocks that compete for it and are
 * skipped, by their summaries: a skipped block is one key with the weight of all of its keys (`block_estimate.ts`), and their
 * mean value. Blocks of segments that the row stands in are never skipped. A state of the online softmax
 * (`softmax_state.ts`), a row each: float32 `[batch, heads, queryLength, 4 * stateVectors]`.
 */
export function attendRemainder(
  backend: WebGPUBackend,
  query: TensorInfo,
  key: TensorInfo,
  value: TensorInfo,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan: BlockPlan,
  keyLengths?: TensorInfo,
): TensorInfo {
  return withScratch(backend, (scratch) => {
    const skipped = summarizeSkipped(backend, key, value, plan, geometry, scratch, keyLengths);
    return new AttendRemainderProgram(
      {query, ...skipped, blockLists: plan.blockLists, keyLengths},
      geometry,
      scale,
      causal,
    ).run(backend);
  });
}

/** What is known of blocks that are skipped: summaries of keys, with variances, and the means of values. */
export interface SkippedBlocks {
  summaries: TensorInfo;
  valueMeans: TensorInfo;
}

/** Summaries of the blocks of a plan; those that it does not have are made and handed to `scratch`. */
export function summarizeSkipped(
  backend: WebGPUBackend,
  key: TensorInfo,
  value: TensorInfo,
  {keyIndices, summaries}: BlockPlan,
  geometry: BlockGeometry,
  scratch: Take<TensorInfo>,
  keyLengths?: TensorInfo,
): SkippedBlocks {
  const summarize = (x: TensorInfo, variance: boolean) =>
    scratch(new SummarizeBlocksProgram(x, keyIndices, geometry, variance, keyLengths).run(backend));
  return {summaries: summaries ?? summarize(key, true), valueMeans: summarize(value, false)};
}

interface RemainderInputs extends SkippedBlocks {
  query: TensorInfo;
  blockLists: TensorInfo;
  keyLengths?: TensorInfo;
}

interface RemainderVariant extends GridVariant {
  headDim: number;
  valueDim: number;
  padded: boolean;
}

/** Invocations that share a row: each holds a quarter of its query and of its values. */
const parts = 4;
const threads = 64;

/** vec4 of a row that an invocation holds. */
const ownVectors = (dim: number) => Math.ceil(headVectors(dim) / parts);
/** Rows of an invocation: each summary that it reads serves them all, as far as they fit into registers. */
const ownRows = (headDim: number, valueDim: number) =>
  Math.max(1, Math.min(4, Math.floor(16 / Math.max(ownVectors(headDim), ownVectors(valueDim)))));

export class AttendRemainderProgram extends AttentionProgram<RemainderVariant> {
  constructor(inputs: RemainderInputs, geometry: BlockGeometry, scale: number, causal: boolean) {
    const {batch, heads, queryLength, keyLength, headDim, valueDim, blockSize, queryBlocks, keyBlocks} = geometry;
    const grid = gridVariant(geometry, causal);
    const {keyLengths} = inputs;
    const components = rowComponents(headDim);
    const rowsOfWorkgroup = (threads / parts) * ownRows(headDim, valueDim);
    const piecesOfBlock = Math.ceil(blockSize / rowsOfWorkgroup);
    super({
      inputs: {
        query: {tensor: inputs.query, components},
        summaries: {tensor: inputs.summaries, components},
        valueMeans: {tensor: inputs.valueMeans, components: rowComponents(valueDim)},
        blockLists: {tensor: inputs.blockLists, components: 1},
        ...keyLengthsInput(keyLengths),
      },
      outputShape: [batch, heads, queryLength, 4 * stateVectors(valueDim)],
      outputType: 'float32',
      outputComponents: 4,
      threads,
      workgroups: batch * heads * queryBlocks * piecesOfBlock,
      uniforms: {
        ...gridUniforms(geometry, grid),
        keyBlocks: {type: 'i32', value: keyBlocks},
        keyLength: {type: 'i32', value: keyLength},
        ...summaryUniforms(scale),
        piecesOfBlock: {type: 'i32', value: piecesOfBlock},
      },
      variant: {headDim, valueDim, padded: keyLengths !== undefined, ...grid},
    });
  }

  protected shader({headDim, valueDim, padded, ...grid}: RemainderVariant): string {
    const rows = ownRows(headDim, valueDim);
    const queryVectors = ownVectors(headDim);
    const valueVectors = ownVectors(valueDim);
    const four = (text: (k: number) => string, separator = ', ') => [0, 1, 2, 3].map(text).join(separator);
    // Where the vectors of a row cannot be shared evenly, the last invocations have fewer.
    const exists = (vector: string, dim: number) =>
      headVectors(dim) % parts === 0 ? '' : `if (${vector} < ${headVectors(dim)}) `;
    const byRow = (text: (r: number) => string) => four((r) => (r < rows ? text(r) : '0.0'));
    return `
// A workgroup takes ${(threads / parts) * rows} query rows of one block. ${parts} neighbouring invocations share ${rows} of them: each holds a quarter of their
// queries and of their values in registers, so that a summary that it reads serves ${rows} rows. They take four skipped blocks
// at a time: each adds up the products of its quarter, for all four blocks; by way of workgroup memory each then gets the
// whole products of one block, and from its scores all four get the weights. A vec4 holds the same of ${rows} rows.
${workgroupIndex}${noScores}${gridFunctions(grid)}${padded ? keyEnd('uniforms.outShape.y', 'uniforms.keyLength') : ''}
${readRow('readQuery', 'query', headDim)}
${readRow('readSummary', 'summaries', headDim)}
${readRow('readValue', 'valueMeans', valueDim)}
${summaryScore}
var<workgroup> byMeanParts : array<vec4<f32>, ${4 * threads}>;
var<workgroup> byVarianceParts : array<vec4<f32>, ${4 * threads}>;
var<workgroup> scoreParts : array<vec4<f32>, ${threads}>;
var<workgroup> keptBlocks : atomic<i32>;
// Blocks that compete, and how many of them are skipped.
var<workgroup> counts : vec2<i32>;

fn main(index : i32) {
  let local = i32(localIndex);
  let part = local % ${parts};
  let team = local - part;
  let heads = uniforms.outShape.y;
  let allHeads = uniforms.outShape.x * heads;
  let queryBlocks = uniforms.blockListsShape.z;
  let piece = workgroupIndex() % uniforms.piecesOfBlock;
  // Last rows first: under a causal mask most blocks compete for them, and a long workgroup should not start last.
  let queryBlock = queryBlocks - 1 - (workgroupIndex() / uniforms.piecesOfBlock) % queryBlocks;
  let head = min(workgroupIndex() / (uniforms.piecesOfBlock * queryBlocks), allHeads - 1);
  let rowInBlock = (piece * ${threads / parts} + local / ${parts}) * ${rows};
  let firstRow = queryBlock * uniforms.blockSize + rowInBlock;
  let endRow = select(
    min((queryBlock + 1) * uniforms.blockSize, uniforms.outShape.z),
    0,
    workgroupIndex() >= uniforms.piecesOfBlock * queryBlocks * allHeads);
  let list = (head * queryBlocks + queryBlock) * (uniforms.keyBlocks + 1);
  let listEnd = list + 1 + blockLists[list];
  let end = ${padded ? 'keyEnd(head)' : 'uniforms.keyLength'};
  let competing = min(scoredBlocks(queryBlock), (end + uniforms.blockSize - 1) / uniforms.blockSize);
  for (var i = list + 1 + local; i < listEnd; i += ${threads}) {
    if (blockLists[i] < competing) {
      atomicAdd(&keptBlocks, 1);
    }
  }
  // Barrier: all have counted.
  workgroupBarrier();
  if (local == 0) {
    counts = vec2<i32>(competing, competing - atomicLoad(&keptBlocks));
  }
  // The loop holds barriers, so all invocations must agree on its length: hence the uniform load.
  let skipped = workgroupUniformLoad(&counts).y;

  // Rows past the end read some row that exists.
  ${each(rows, (r) => `let queryRow${r} = head * uniforms.outShape.z + min(firstRow + ${r}, uniforms.outShape.z - 1);`)}
  ${each(rows, (r) =>
    each(
      queryVectors,
      (v) => `var q${r}_${v} = vec4<f32>(0.0);
    ${exists(`part + ${v * parts}`, headDim)}{ q${r}_${v} = uniforms.logitScale * readQuery(queryRow${r}, part + ${v * parts}); }`,
    ),
  )}

  // Empty state: nothing seen, all sums zero.
  var rowMax = vec4<f32>(lowest);
  var rowSum = vec4<f32>(0.0);
  ${each(rows, (r) => `var values${r} = array<vec4<f32>, ${valueVectors}>();`)}
  var entry = list + 1;
  var block = 0;
  for (var done = 0; done < skipped; done += 4) {
    // The next four skipped blocks; where there are fewer, the first stands for the others and counts once. The list is in
    // ascending order.
    var blocks = vec4<i32>(0);
    var found = 0;
    for (; block < competing && found < 4; block++) {
      if (entry < listEnd && blockLists[entry] == block) {
        entry++;
      } else {
        blocks[found] = block;
        found++;
      }
    }
    blocks = select(vec4<i32>(blocks.x), blocks, vec4<i32>(0, 1, 2, 3) < vec4<i32>(found));
    let meanRows = vec4<i32>(head * uniforms.keyBlocks) + blocks;
    let varianceRows = vec4<i32>(allHeads * uniforms.keyBlocks) + meanRows;

    // 1. Products of this quarter of the rows with four blocks.
    ${four(
      (k) => `var byMean${k} = vec4<f32>(0.0);
    var byVariance${k} = vec4<f32>(0.0);`,
      '\n    ',
    )}
    ${each(
      queryVectors,
      (v) => `${exists(`part + ${v * parts}`, headDim)}{
      ${each(rows, (r) => `let squared${r} = q${r}_${v} * q${r}_${v};`, '\n      ')}
      ${four(
        (k) => `let mean${k} = readSummary(meanRows[${k}], part + ${v * parts});
      let variance${k} = readSummary(varianceRows[${k}], part + ${v * parts});
      byMean${k} += vec4<f32>(${byRow((r) => `dot(q${r}_${v}, mean${k})`)});
      byVariance${k} += vec4<f32>(${byRow((r) => `dot(squared${r}, variance${k})`)});`,
        '\n      ',
      )}
    }`,
    )}
    ${four(
      (k) => `byMeanParts[${k * threads} + local] = byMean${k};
    byVarianceParts[${k * threads} + local] = byVariance${k};`,
      '\n    ',
    )}
    // Barrier: products need the quarters of all invocations of a team.
    workgroupBarrier();

    // 2. Scores of one block each.
    {
      let at = part * ${threads} + team;
      let byMean = ${four((k) => `byMeanParts[at + ${k}]`, ' + ')};
      let byVariance = ${four((k) => `byVarianceParts[at + ${k}]`, ' + ')};
      let scores = summaryScore(byMean, byVariance, vec4<f32>(countOf(blocks[part], end)));
      scoreParts[local] = select(vec4<f32>(masked), scores, part < found);
    }
    // Barrier: weights need the scores of all four blocks. (They are overwritten after the next round's first barrier.)
    workgroupBarrier();

    // 3. Weights, and what was summed so far brought to the new maximum.
    ${four((k) => `let score${k} = scoreParts[team + ${k}];`, '\n    ')}
    let newMax = max(rowMax, max(max(score0, score1), max(score2, score3)));
    let rescale = exp2(rowMax - newMax);
    ${four((k) => `let weight${k} = exp2(score${k} - newMax);`, '\n    ')}
    rowMax = newMax;
    rowSum = rowSum * rescale + ${four((k) => `weight${k}`, ' + ')};
    ${each(
      valueVectors,
      (v) => `${exists(`part + ${v * parts}`, valueDim)}{
      ${four((k) => `let value${k} = readValue(meanRows[${k}], part + ${v * parts});`, '\n      ')}
      ${each(
        rows,
        (r) =>
          `values${r}[${v}] = values${r}[${v}] * rescale[${r}] + ${four((k) => `weight${k}[${r}] * value${k}`, ' + ')};`,
        '\n      ',
      )}
    }`,
    )}
  }

  ${each(
    rows,
    (r) => `if (firstRow + ${r} < endRow) {
    let at = queryRow${r} * ${stateVectors(valueDim)};
    ${each(
      valueVectors,
      (v) => `${exists(`part + ${v * parts}`, valueDim)}{ result[at + part + ${v * parts}] = values${r}[${v}]; }`,
    )}
    if (part == 0) {
      result[at + ${headVectors(valueDim)}] = vec4<f32>(rowMax[${r}], rowSum[${r}], 0.0, 0.0);
    }
  }`,
  )}
}`;
  }
}
