import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {columnLanes, columnSums, columnThreads} from './column_sums.js';
import {keyEnd, keyLengthsInput} from './key_lengths.js';
import {AttentionProgram, headVectors, keyRow, readRow, rowComponents, workgroupIndex, writeRow} from './program.js';

interface SummaryVariant {
  size: number;
  variance: boolean;
  padded: boolean;
}

/**
 * Part of stage 2, summaries of the blocks of permuted keys (what they are, `block_estimate.ts` says): float32
 * `[1 or 2, batch * heads, keyBlocks, size]`, the mean of the rows of each block, and after all means, where asked for, their
 * variances. A block of nothing but padding has zeros.
 *
 * @param key keys or values, `[batch, keyValueHeads, keyLength, size]`.
 */
export class SummarizeBlocksProgram extends AttentionProgram<SummaryVariant> {
  constructor(
    key: TensorInfo,
    keyIndices: TensorInfo,
    geometry: BlockGeometry,
    variance: boolean,
    keyLengths?: TensorInfo,
  ) {
    const {batch, heads, blockSize, keyBlocks} = geometry;
    const size = key.shape[3];
    const components = rowComponents(size);
    super({
      inputs: {
        key: {tensor: key, components},
        keyIndices: {tensor: keyIndices, components: 1},
        ...keyLengthsInput(keyLengths),
      },
      outputShape: [variance ? 2 : 1, batch * heads, keyBlocks, size],
      outputType: 'float32',
      outputComponents: components,
      threads: columnThreads(size),
      workgroups: batch * heads * keyBlocks,
      uniforms: {
        heads: {type: 'i32', value: heads},
        blockSize: {type: 'i32', value: blockSize},
      },
      variant: {size, variance, padded: keyLengths !== undefined},
    });
  }

  protected shader({size, variance, padded}: SummaryVariant): string {
    const vectors = headVectors(size);
    const lanes = columnLanes(size);
    return `
// A workgroup summarises one block: invocation (vector, lane) adds up one vec4 column over every ${lanes}-th row, and the lanes
// are added up in workgroup memory.
${workgroupIndex}
${keyRow}
${readRow('readKey', 'key', size)}
${writeRow('writeSummary', size)}
${padded ? keyEnd('uniforms.heads', 'uniforms.keyShape.z') : ''}
${columnSums(size)}

fn main(index : i32) {
  let vector = i32(localIndex) % ${vectors};
  let lane = i32(localIndex) / ${vectors};
  let blocks = uniforms.outShape.z;
  let block = workgroupIndex() % blocks;
  let head = workgroupIndex() / blocks;
  let exists = head < uniforms.outShape.y;
  let first = block * uniforms.blockSize;
  // Padding stands last in its segment, so the keys that are none are the first of the order, too.
  let end = select(first, min(first + uniforms.blockSize, ${padded ? 'keyEnd(head)' : 'uniforms.keyShape.z'}), exists);
  let count = f32(max(1, end - first));
  var mean = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += ${lanes}) {
    mean += readKey(keyRow(head, uniforms.heads, keyIndices[head * uniforms.keyIndicesShape.z + i]), vector);
  }
  mean = sumLanes(mean) / count;
  if (lane == 0 && exists) {
    writeSummary(workgroupIndex(), vector, mean);
  }${
    variance
      ? `
  var variance = vec4<f32>(0.0);
  for (var i = first + lane; i < end; i += ${lanes}) {
    let x = readKey(keyRow(head, uniforms.heads, keyIndices[head * uniforms.keyIndicesShape.z + i]), vector) - mean;
    variance += x * x;
  }
  variance = sumLanes(variance);
  if (lane == 0 && exists) {
    writeSummary(uniforms.outShape.y * blocks + workgroupIndex(), vector, variance / count);
  }`
      : ''
  }
}`;
  }
}
