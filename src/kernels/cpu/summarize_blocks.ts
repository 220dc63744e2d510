import type {BlockGeometry} from '../block_geometry.js';
import {keyRow, lengthOf} from './permute.js';

/** Summaries of the key blocks of each query head, in its permuted order: what they are, `block_estimate.ts` says. */
export interface BlockSummaries {
  /** float64 `[batch, heads, keyBlocks, headDim]`: mean of the keys, and their variance. */
  means: Float64Array;
  variances: Float64Array;
  /** int32 `[batch, heads, keyBlocks]`: keys that are not padding. A block of none has a summary of zeros. */
  counts: Int32Array;
}

/** Part of stage 2: summaries of the blocks of permuted keys. */
export function summarizeBlocks(
  key: Float32Array,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  keyLengths?: Int32Array,
): BlockSummaries {
  const {batch, heads, keyLength, headDim, blockSize, keyBlocks} = geometry;
  const counts = blockCounts(geometry, keyLengths);
  const means = blockMeans(key, headDim, keyIndices, geometry, counts);
  const variances = new Float64Array(batch * heads * keyBlocks * headDim);
  for (let block = 0; block < batch * heads * keyBlocks; ++block) {
    const head = Math.floor(block / keyBlocks);
    const first = head * keyLength + (block % keyBlocks) * blockSize;
    for (let i = first; i < first + counts[block]; ++i) {
      const row = keyRow(geometry, head, keyIndices[i]) * headDim;
      for (let d = 0; d < headDim; ++d) {
        variances[block * headDim + d] += (key[row + d] - means[block * headDim + d]) ** 2 / counts[block];
      }
    }
  }
  return {means, variances, counts};
}

/** float64 `[batch, heads, keyBlocks, valueDim]`: mean of the values of each block of permuted keys. */
export function summarizeValues(
  value: Float32Array,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  keyLengths?: Int32Array,
): Float64Array {
  return blockMeans(value, geometry.valueDim, keyIndices, geometry, blockCounts(geometry, keyLengths));
}

function blockMeans(
  x: Float32Array,
  size: number,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  counts: Int32Array,
): Float64Array {
  const {keyLength, blockSize, keyBlocks} = geometry;
  const means = new Float64Array(counts.length * size);
  for (let block = 0; block < counts.length; ++block) {
    const head = Math.floor(block / keyBlocks);
    const first = head * keyLength + (block % keyBlocks) * blockSize;
    for (let i = first; i < first + counts[block]; ++i) {
      const row = keyRow(geometry, head, keyIndices[i]) * size;
      for (let d = 0; d < size; ++d) {
        means[block * size + d] += x[row + d] / counts[block];
      }
    }
  }
  return means;
}

/** Padding stands last in its segment, so the keys that are none are the first of the order, too. */
function blockCounts(geometry: BlockGeometry, keyLengths?: Int32Array): Int32Array {
  const {batch, heads, blockSize, keyBlocks} = geometry;
  return Int32Array.from({length: batch * heads * keyBlocks}, (_, block) => {
    const length = lengthOf(geometry, Math.floor(block / keyBlocks), keyLengths);
    return Math.max(0, Math.min(blockSize, length - (block % keyBlocks) * blockSize));
  });
}
