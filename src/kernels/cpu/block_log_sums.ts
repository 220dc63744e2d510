import type {BlockGeometry} from '../block_geometry.js';
import {scoredBlocks, visibleBlocks} from '../block_geometry.js';
import {dot, keyRow, lengthOf} from './permute.js';

/**
 * Part of stage 2: float64 `[batch, heads, queryBlocks, rows, keyBlocks]`, the logarithm of what some rows of each query
 * block pay to each key block: log Σ exp(scale · q · k) over the keys of the block that the row may see, −Infinity where there
 * are none.
 *
 * @param rows int32 `[batch, heads, queryBlocks, rows]`: query rows of each query block.
 * @param ownSegment whether only the blocks that do not compete are computed: those of the segments that the query block
 *     stands in; the others are −Infinity.
 */
export function blockLogSums(
  query: Float32Array,
  key: Float32Array,
  rows: Int32Array,
  keyIndices: Int32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  ownSegment: boolean,
  keyLengths?: Int32Array,
): Float64Array {
  const {batch, heads, queryLength, keyLength, queryOffset, headDim, blockSize, queryBlocks, keyBlocks} = geometry;
  const perBlock = rows.length / (batch * heads * queryBlocks);
  const sums = new Float64Array(rows.length * keyBlocks).fill(-Infinity);
  const scores = new Float64Array(blockSize);
  rows.forEach((row, at) => {
    const queryBlock = Math.floor(at / perBlock) % queryBlocks;
    const head = Math.floor(at / (perBlock * queryBlocks));
    const length = lengthOf(geometry, head, keyLengths);
    const end = causal ? Math.min(length, queryOffset + row + 1) : length;
    const queryStart = (head * queryLength + row) * headDim;
    const firstBlock = ownSegment ? scoredBlocks(geometry, causal, queryBlock) : 0;
    for (let keyBlock = firstBlock; keyBlock < visibleBlocks(geometry, causal, queryBlock); ++keyBlock) {
      let seen = 0;
      for (let i = keyBlock * blockSize; i < Math.min((keyBlock + 1) * blockSize, keyLength); ++i) {
        const position = keyIndices[head * keyLength + i];
        if (position < end) {
          scores[seen++] = scale * dot(query, queryStart, key, keyRow(geometry, head, position) * headDim, headDim);
        }
      }
      sums[at * keyBlocks + keyBlock] = logSumExp(scores.subarray(0, seen));
    }
  });
  return sums;
}

/** log Σ exp(x), −Infinity for nothing. */
export function logSumExp(x: Float64Array): number {
  const max = x.reduce((a, b) => Math.max(a, b), -Infinity);
  return max === -Infinity ? max : max + Math.log(x.reduce((sum, y) => sum + Math.exp(y - max), 0));
}
