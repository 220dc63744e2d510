import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {BlockGeometry} from '../block_geometry.js';
import {columnLanes, columnSums, columnThreads} from './column_sums.js';
import {AttentionProgram, headVectors, readRow, rowComponents, withScratch, workgroupIndex} from './program.js';
import {rankFrom} from './sort_keys.js';

/**
 * Part of stage 2: int32 `[batch, heads, queryBlocks, probeRows]`, the rows of each query block that lie farthest from the
 * block's mean query, farthest first, equal distances by index. A block of fewer rows repeats its first.
 */
export function chooseProbeRows(
  backend: WebGPUBackend,
  query: TensorInfo,
  geometry: BlockGeometry,
  probeRows: number,
): TensorInfo {
  return withScratch(backend, (scratch) => {
    const distances = scratch(new QueryDistancesProgram(query, geometry).run(backend));
    return new ProbeRowsProgram(distances, geometry, probeRows).run(backend);
  });
}

/** Rows of a block that are ranked at a time. */
const rankThreads = 128;

interface DistanceVariant {
  headDim: number;
}

/** float32 `[batch, heads, queryLength]`: squared distance of each query row from the mean of its block. */
export class QueryDistancesProgram extends AttentionProgram<DistanceVariant> {
  constructor(query: TensorInfo, {batch, heads, queryLength, headDim, blockSize, queryBlocks}: BlockGeometry) {
    super({
      inputs: {query: {tensor: query, components: rowComponents(headDim)}},
      outputShape: [batch, heads, queryLength],
      outputType: 'float32',
      threads: columnThreads(headDim),
      workgroups: batch * heads * queryBlocks,
      uniforms: {
        blockSize: {type: 'i32', value: blockSize},
        queryBlocks: {type: 'i32', value: queryBlocks},
      },
      variant: {headDim},
    });
  }

  protected shader({headDim}: DistanceVariant): string {
    const vectors = headVectors(headDim);
    const lanes = columnLanes(headDim);
    return `
// A workgroup takes one query block. First invocation (vector, lane) adds up one vec4 column over every ${lanes}-th row, and the
// lanes are added up in workgroup memory; then an invocation takes every ${vectors * lanes}-th row.
${workgroupIndex}
${readRow('readQuery', 'query', headDim)}
${columnSums(headDim)}
var<workgroup> meanQuery : array<vec4<f32>, ${vectors}>;

fn main(index : i32) {
  let vector = i32(localIndex) % ${vectors};
  let lane = i32(localIndex) / ${vectors};
  let length = uniforms.outShape.z;
  let head = workgroupIndex() / uniforms.queryBlocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let first = (workgroupIndex() % uniforms.queryBlocks) * uniforms.blockSize;
  let end = select(first, min(first + uniforms.blockSize, length), exists);
  var sum = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += ${lanes}) {
    sum += readQuery(head * length + i, vector);
  }
  sum = sumLanes(sum);
  if (lane == 0) {
    meanQuery[vector] = sum / f32(max(1, end - first));
  }
  // Barrier: all invocations read the mean.
  workgroupBarrier();
  for (var i = first + i32(localIndex); i < end; i += ${vectors * lanes}) {
    var distance = 0.0;
    for (var v = 0; v < ${vectors}; v++) {
      let x = readQuery(head * length + i, v) - meanQuery[v];
      distance += dot(x, x);
    }
    result[head * length + i] = distance;
  }
}`;
  }
}

/** int32 `[batch, heads, queryBlocks, probeRows]`: the rows of the largest distances. */
export class ProbeRowsProgram extends AttentionProgram<object> {
  constructor(distances: TensorInfo, {batch, heads, blockSize, queryBlocks}: BlockGeometry, probeRows: number) {
    super({
      inputs: {distances: {tensor: distances, components: 1}},
      outputShape: [batch, heads, queryBlocks, probeRows],
      outputType: 'int32',
      threads: rankThreads,
      workgroups: batch * heads * queryBlocks,
      uniforms: {blockSize: {type: 'i32', value: blockSize}},
      variant: {},
    });
  }

  protected shader(): string {
    return `
// A workgroup takes one query block; an invocation owns every ${rankThreads}th row, whose place is its rank.
${workgroupIndex}
${rankFrom('distances', rankThreads)}

// Rows of the workgroup's block.
var<workgroup> rowCount : i32;

fn main(index : i32) {
  let length = uniforms.distancesShape.z;
  let queryBlocks = uniforms.outShape.z;
  let probeRows = uniforms.outShape.w;
  let head = workgroupIndex() / queryBlocks;
  let exists = head < uniforms.outShape.x * uniforms.outShape.y;
  let first = (workgroupIndex() % queryBlocks) * uniforms.blockSize;
  if (localIndex == 0u) {
    rowCount = select(0, min(uniforms.blockSize, length - first), exists);
  }
  // The ranking holds barriers, so all invocations must agree on the count: hence the uniform load.
  let count = workgroupUniformLoad(&rowCount);
  for (var base = 0; base < count; base += ${rankThreads}) {
    let own = base + i32(localIndex);
    let place = rank(head * length + first, count, own);
    if (own < count && place < probeRows) {
      result[workgroupIndex() * probeRows + place] = first + own;
    }
    if (own < count && place == 0) {
      for (var i = count; i < probeRows; i++) {
        result[workgroupIndex() * probeRows + i] = first + own;
      }
    }
  }
}`;
  }
}
