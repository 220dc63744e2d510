import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {evenWork} from '../runtime/launches.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {WebGPUCall} from '../webgpu_call.js';
import type {GridVariant} from '../wgsl/block_grid.js';
import {gridFunctions, gridVariant, scoringWork} from '../wgsl/block_grid.js';
import type {KeysVariant} from '../wgsl/key_lengths.js';
import {keyEnd, keysVariant} from '../wgsl/key_lengths.js';
import {headVectors, keyRow, readRow, rowComponents, rowInputs, workgroupIndex, writeRow} from '../wgsl/rows.js';
import {workgroupReduce} from '../wgsl/workgroup_reduce.js';

/**
 * Stage 2, score blocks, by the pooled estimate (paper section 3.3): float32 `[batch, heads, queryBlocks, keyBlocks]`, the share of attention that a
 * query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1, or to 0 where
 * nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(call: WebGPUCall, keyIndices: TensorInfo): TensorInfo {
  const {backend} = call;
  return withScratch(backend, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(call, keyIndices).run(backend));
    return new BlockScoresProgram(call, pooled).run(backend);
  });
}

/** Rows that are added up side by side: what is left of 128 invocations when each takes one vec4 column. */
const pooledLanes = (headDim: number) => Math.max(1, Math.floor(128 / headVectors(headDim)));

/** Shape of the means of blocks. */
export const blockMeansShape = ({batch, heads, queryBlocks, keyBlocks, headDim}: BlockGeometry): number[] => [
  batch * heads * (queryBlocks + keyBlocks),
  headDim,
];

/**
 * float32 `[batch * heads * (queryBlocks + keyBlocks), headDim]`: the mean query of each block, of all heads, then the mean
 * key of each block of the permuted order, which differs by head.
 */
export class PoolBlocksProgram extends AttentionProgram<KeysVariant> {
  constructor(call: WebGPUCall, keyIndices: TensorInfo) {
    const {query, key, keyLengths, geometry} = call;
    const outputShape = blockMeansShape(geometry);
    const [blocks, headDim] = outputShape;
    super({
      name: 'PoolBlocks',
      inputs: {...rowInputs({query, key}), keyIndices, keyLengths},
      outputShape,
      outputComponents: rowComponents(headDim),
      threads: headVectors(headDim) * pooledLanes(headDim),
      workgroups: blocks,
      call,
      work: evenWork(call.planTimes?.pool),
      variant: keysVariant(call),
    });
  }

  protected shader({headDim, padded}: KeysVariant): string {
    const vectors = headVectors(headDim);
    const lanes = pooledLanes(headDim);
    return `
// A workgroup computes the mean of one block's rows: invocation (vector, lane) adds up one vec4 column over every
// ${lanes}-th row, and the lanes are added up in workgroup memory. A partial block is still divided by the block size.
${workgroupIndex}
${keyRow}
${readRow('readQuery', 'query', headDim)}
${readRow('readKey', 'key', headDim)}
${writeRow('writePooled', headDim)}${keyEnd({padded})}
var<workgroup> laneSums : array<vec4<f32>, ${vectors * lanes}>;

fn main(index : i32) {
  let vector = i32(localIndex) % ${vectors};
  let lane = i32(localIndex) / ${vectors};
  let firstKeyBlock = uniforms.batch * uniforms.heads * uniforms.queryBlocks;
  let ofQuery = workgroupIndex() < firstKeyBlock;
  let place = workgroupIndex() - select(firstKeyBlock, 0, ofQuery);
  let blocks = select(uniforms.keyBlocks, uniforms.queryBlocks, ofQuery);
  let block = place % blocks;
  let head = place / blocks;
  let exists = workgroupIndex() < uniforms.outShape.x;
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  let length = select(keyEnd(head), uniforms.queryLength, ofQuery);
  let size = select(uniforms.keyBlockSize, uniforms.blockSize, ofQuery);
  let end = select(0, min((block + 1) * size, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = block * size + lane; i < end; i += ${lanes}) {
    if (ofQuery) {
      sum += readQuery(head * uniforms.queryLength + i, vector);
    } else {
      sum += readKey(keyRow(head, keyIndices[head * uniforms.keyLength + i]), vector);
    }
  }
  laneSums[i32(localIndex)] = sum;
  // Barrier: a mean takes what all lanes of its column added up.
  workgroupBarrier();
  if (lane == 0 && exists) {
    for (var i = 1; i < ${lanes}; i++) {
      sum += laneSums[i * ${vectors} + vector];
    }
    writePooled(workgroupIndex(), vector, sum / f32(size));
  }
}`;
  }
}

interface BlockScoresVariant extends KeysVariant, GridVariant {}

/** float32 `[batch, heads, queryBlocks, keyBlocks]`: the scores. */
export class BlockScoresProgram extends AttentionProgram<BlockScoresVariant> {
  constructor(call: WebGPUCall, pooled: TensorInfo) {
    const {batch, heads, queryBlocks, keyBlocks} = call.geometry;
    super({
      name: 'BlockScores',
      inputs: {...rowInputs({pooled}), keyLengths: call.keyLengths},
      outputShape: [batch, heads, queryBlocks, keyBlocks],
      threads: 128,
      workgroups: batch * heads * queryBlocks,
      call,
      work: scoringWork(call),
      variant: {...keysVariant(call), ...gridVariant(call)},
    });
  }

  protected shader({headDim, padded, ...grid}: BlockScoresVariant): string {
    const logit = 'logit(row, head * blocks + i)';
    return `
// A workgroup computes the row of one query block; an invocation computes every 128th key block. The row itself holds
// the unnormalised values between the steps, each read by the invocation that wrote it, so only the reductions of
// maximum and sum need workgroup memory and barriers.
${workgroupIndex}
${workgroupReduce(128)}
${readRow('readPooled', 'pooled', headDim)}${gridFunctions(grid)}${keyEnd({padded})}

// log2 of the weight of a key block: the pooled keys stand behind the pooled queries of all heads.
fn logit(row : i32, keyRow : i32) -> f32 {
  let firstKeyRow = uniforms.batch * uniforms.heads * uniforms.queryBlocks;
  var sum = 0.0;
  for (var i = 0; i < ${headVectors(headDim)}; i++) {
    sum += dot(readPooled(row, i), readPooled(firstKeyRow + keyRow, i));
  }
  return uniforms.logitScale * sum;
}

fn main(index : i32) {
  let blocks = uniforms.keyBlocks;
  let row = workgroupIndex();
  let queryBlock = row % uniforms.queryBlocks;
  let head = row / uniforms.queryBlocks;
  let exists = head < uniforms.batch * uniforms.heads;
  let unpaddedBlocks = (keyEnd(head) + uniforms.keyBlockSize - 1) / uniforms.keyBlockSize;
  let candidates = min(scoredBlocks(queryBlock), unpaddedBlocks);
  let end = select(0, candidates, exists);${grid.window ? '\n  let first = firstBlock(queryBlock);' : ''}

  var localMax = -3.4e38f;
  for (var i = i32(localIndex); i < end; i += 128) {
    let x = ${grid.window ? `select(-3.4e38f, ${logit}, i >= first)` : logit};
    result[row * blocks + i] = x;
    localMax = max(localMax, x);
  }
  let rowMax = workgroupMax(localMax);
  var localSum = 0.0;
  for (var i = i32(localIndex); i < end; i += 128) {
    let weight = exp2(result[row * blocks + i] - rowMax);
    result[row * blocks + i] = weight;
    localSum += weight;
  }
  let sum = workgroupSum(localSum);
  if (exists) {
    for (var i = i32(localIndex); i < blocks; i += 128) {
      result[row * blocks + i] = select(0.0, result[row * blocks + i] / sum, ${grid.window ? 'i >= first && ' : ''}i < end);
    }
  }
}`;
  }
}
