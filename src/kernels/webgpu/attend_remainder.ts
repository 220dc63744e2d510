import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
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
  {keyIndices, blockLists}: BlockPlan,
  keyLengths?: TensorInfo,
): TensorInfo {
  return withScratch(backend, (scratch) => {
    const summarize = (x: TensorInfo, variance: boolean) =>
      scratch(new SummarizeBlocksProgram(x, keyIndices, geometry, variance, keyLengths).run(backend));
    const parts = {query, summaries: summarize(key, true), valueMeans: summarize(value, false), blockLists, keyLengths};
    return new AttendRemainderProgram(parts, geometry, scale, causal).run(backend);
  });
}

interface RemainderInputs {
  query: TensorInfo;
  summaries: TensorInfo;
  valueMeans: TensorInfo;
  blockLists: TensorInfo;
  keyLengths?: TensorInfo;
}

interface RemainderVariant extends GridVariant {
  headDim: number;
  valueDim: number;
  padded: boolean;
}

const threads = 64;

export class AttendRemainderProgram extends AttentionProgram<RemainderVariant> {
  constructor(inputs: RemainderInputs, geometry: BlockGeometry, scale: number, causal: boolean) {
    const {batch, heads, queryLength, keyLength, headDim, valueDim, blockSize, queryBlocks, keyBlocks} = geometry;
    const grid = gridVariant(geometry, causal);
    const {keyLengths} = inputs;
    const components = rowComponents(headDim);
    const partsPerBlock = Math.ceil(blockSize / threads);
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
      workgroups: batch * heads * queryBlocks * partsPerBlock,
      uniforms: {
        ...gridUniforms(geometry, grid),
        keyBlocks: {type: 'i32', value: keyBlocks},
        keyLength: {type: 'i32', value: keyLength},
        ...summaryUniforms(scale),
        partsPerBlock: {type: 'i32', value: partsPerBlock},
      },
      variant: {headDim, valueDim, padded: keyLengths !== undefined, ...grid},
    });
  }

  protected shader({headDim, valueDim, padded, ...grid}: RemainderVariant): string {
    const vectors = headVectors(headDim);
    const valueVectors = headVectors(valueDim);
    const four = (text: (k: string) => string) => ['x', 'y', 'z', 'w'].map(text).join(', ');
    return `
// An invocation owns one query row, in registers; a workgroup ${threads} rows of one query block, or what is left of it. All its
// invocations read the same summaries at a time, straight from global memory: one read serves them all. They take four blocks
// at a time, so that four times as many reads are on their way. Nothing is shared, so there is no barrier.
${workgroupIndex}${noScores}${gridFunctions(grid)}${padded ? keyEnd('uniforms.outShape.y', 'uniforms.keyLength') : ''}
${readRow('readQuery', 'query', headDim)}
${readRow('readSummary', 'summaries', headDim)}
${readRow('readValue', 'valueMeans', valueDim)}
${summaryScore}

fn main(index : i32) {
  let heads = uniforms.outShape.y;
  let allHeads = uniforms.outShape.x * heads;
  let queryBlocks = uniforms.blockListsShape.z;
  let part = workgroupIndex() % uniforms.partsPerBlock;
  // Last rows first: under a causal mask most blocks compete for them, and a long workgroup should not start last.
  let queryBlock = queryBlocks - 1 - (workgroupIndex() / uniforms.partsPerBlock) % queryBlocks;
  let head = workgroupIndex() / (uniforms.partsPerBlock * queryBlocks);
  let rowInBlock = part * ${threads} + i32(localIndex);
  let row = queryBlock * uniforms.blockSize + rowInBlock;
  if (head >= allHeads || rowInBlock >= uniforms.blockSize || row >= uniforms.outShape.z) {
    return;
  }
  let queryRow = head * uniforms.outShape.z + row;
  ${each(vectors, (v) => `let q${v} = uniforms.logitScale * readQuery(queryRow, ${v});`)}

  // Empty state: nothing seen, all sums zero.
  var rowMax = lowest;
  var rowSum = 0.0;
  var values = array<vec4<f32>, ${valueVectors}>();
  let list = (head * queryBlocks + queryBlock) * (uniforms.keyBlocks + 1);
  let listEnd = list + 1 + blockLists[list];
  var entry = list + 1;
  let end = ${padded ? 'keyEnd(head)' : 'uniforms.keyLength'};
  let blocks = min(scoredBlocks(queryBlock), (end + uniforms.blockSize - 1) / uniforms.blockSize);
  var block = 0;
  while (block < blocks) {
    // The next four skipped blocks; where there are fewer, the last ones count nothing.
    var four : vec4<i32>;
    var found = 0;
    for (; block < blocks && found < 4; block++) {
      // The list is in ascending order.
      if (entry < listEnd && blockLists[entry] == block) {
        entry++;
      } else {
        four[found] = block;
        found++;
      }
    }
    if (found == 0) {
      break;
    }
    let isFound = vec4<i32>(0, 1, 2, 3) < vec4<i32>(found);
    four = select(vec4<i32>(four.x), four, isFound);
    let meanRows = vec4<i32>(head * uniforms.keyBlocks) + four;
    let varianceRows = vec4<i32>(allHeads * uniforms.keyBlocks) + meanRows;
    var byMean = vec4<f32>(0.0);
    var byVariance = vec4<f32>(0.0);
    ${each(
      vectors,
      (v) => `byMean += vec4<f32>(${four((k) => `dot(q${v}, readSummary(meanRows.${k}, ${v}))`)});
    {
      let squared = q${v} * q${v};
      byVariance += vec4<f32>(${four((k) => `dot(squared, readSummary(varianceRows.${k}, ${v}))`)});
    }`,
    )}
    let counts = vec4<f32>(${four((k) => `countOf(four.${k}, end)`)});
    let scores = select(vec4<f32>(masked), summaryScore(byMean, byVariance, counts), isFound);
    let newMax = max(rowMax, max(max(scores.x, scores.y), max(scores.z, scores.w)));
    let rescale = exp2(rowMax - newMax);
    let weights = exp2(scores - newMax);
    rowMax = newMax;
    rowSum = rowSum * rescale + dot(weights, vec4<f32>(1.0));
    ${each(
      valueVectors,
      (v) =>
        `values[${v}] = values[${v}] * rescale + ${['x', 'y', 'z', 'w'].map((k) => `weights.${k} * readValue(meanRows.${k}, ${v})`).join(' + ')};`,
    )}
  }

  let at = queryRow * ${stateVectors(valueDim)};
  ${each(valueVectors, (v) => `result[at + ${v}] = values[${v}];`)}
  result[at + ${valueVectors}] = vec4<f32>(rowMax, rowSum, 0.0, 0.0);
}`;
  }
}
