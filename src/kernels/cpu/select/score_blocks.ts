import {firstVisibleBlock, scoredBlocks} from '../../../attention/block_geometry.js';
import type {CPUCall} from '../cpu_call.js';
import {dot, keyRow, lengthOf, softmax} from '../rows.js';

/**
 * Stage 2, score blocks, by the pooled estimate (paper section 3.3): float64 `[batch, heads, queryBlocks, keyBlocks]`,
 * the share of attention that a query block is expected to pay to each key block that competes for it, 0 elsewhere; a
 * row adds up to 1, or to 0 where nothing competes. It is a softmax over products of mean queries and mean keys.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(call: CPUCall, keyIndices: Int32Array): Float64Array {
  const {query, key, geometry, scale, causal} = call;
  const {batch, heads, queryLength, keyLength, headDim, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const scores = new Float64Array(batch * heads * queryBlocks * keyBlocks);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(call, head);
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    const pooledQuery = poolBlocks(query, headDim, blockSize, queryLength, (i) => head * queryLength + i);
    // Padding stands last in its segment, so the keys that are none are the first of the order, too.
    const pooledKey = poolBlocks(key, headDim, keyBlockSize, length, (i) => keyRow(geometry, head, order[i]));
    const blocksWithKeys = Math.ceil(length / keyBlockSize);
    for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const start = (head * queryBlocks + queryBlock) * keyBlocks;
      const first = firstVisibleBlock(geometry, queryBlock);
      const competing = Math.min(scoredBlocks(geometry, causal, queryBlock), blocksWithKeys);
      const products = Float64Array.from(
        {length: Math.max(0, competing - first)},
        (_, i) => scale * dot(pooledQuery, queryBlock * headDim, pooledKey, (first + i) * headDim, headDim),
      );
      scores.set(softmax(products), start + first);
    }
  }
  return scores;
}

/** Mean of the rows of each block: a partial block is padded with zeros and still divided by the block size. */
function poolBlocks(
  x: Float32Array,
  headDim: number,
  blockSize: number,
  rows: number,
  rowAt: (i: number) => number,
): Float64Array {
  const pooled = new Float64Array(Math.ceil(rows / blockSize) * headDim);
  for (let i = 0; i < rows; ++i) {
    const source = rowAt(i) * headDim;
    const target = Math.floor(i / blockSize) * headDim;
    for (let d = 0; d < headDim; ++d) {
      pooled[target + d] += x[source + d] / blockSize;
    }
  }
  return pooled;
}
