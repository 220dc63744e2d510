import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock, scoredBlocks} from '../block_geometry.js';
import type {KeyOrder} from './permute.js';
import {dot, keyRow, lengthOf} from './permute.js';

/**
 * Stage 2, score blocks (paper section 3.3): float64 `[batch, heads, queryBlocks, keyBlocks]`, the share of attention that a
 * query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1, or to 0 where
 * nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys. With `exactLastBlock`, query blocks that hold
 * proxy rows take the attention that those rows pay, known from stage 1; that needs a causal mask, because stage 1
 * knows complete segments alone.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(
  query: Float32Array,
  key: Float32Array,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  keyLengths?: Int32Array,
): Float64Array {
  const {batch, heads, queryLength, keyLength, headDim, blockSize, queryBlocks, keyBlocks, permutedLength} = geometry;
  const scores = new Float64Array(batch * heads * queryBlocks * keyBlocks);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(geometry, head, keyLengths);
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    const pooledQuery = poolBlocks(query, geometry, queryLength, (i) => head * queryLength + i);
    // Padding stands last in its segment, so the keys that are none are the first of the order, too.
    const pooledKey = poolBlocks(key, geometry, length, (i) => keyRow(geometry, head, order[i]));
    const blocksWithKeys = Math.ceil(length / blockSize);
    const proxyScores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const start = (head * queryBlocks + queryBlock) * keyBlocks;
      const competing = Math.min(scoredBlocks(geometry, causal, queryBlock), blocksWithKeys);
      const row = scores.subarray(start, start + competing);
      if (exactLastBlock && causal && queryBlock >= firstProxyBlock(geometry, length)) {
        proxyMass(row, proxyScores, order, geometry);
        normalise(row);
      } else {
        row.forEach((_, keyBlock) => {
          row[keyBlock] = scale * dot(pooledQuery, queryBlock * headDim, pooledKey, keyBlock * headDim, headDim);
        });
        softmax(row);
      }
    }
  }
  return scores;
}

/** Mean of the rows of each block: a partial block is padded with zeros and still divided by the block size. */
function poolBlocks(
  x: Float32Array,
  {headDim, blockSize}: BlockGeometry,
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

/** Adds the attention of the proxy rows to each block of the row: shares of what they pay to all complete segments. */
export function proxyMass(
  row: Float64Array,
  keyScores: Float64Array,
  order: Int32Array,
  {blockSize}: BlockGeometry,
): void {
  for (let i = 0; i < row.length * blockSize; ++i) {
    row[Math.floor(i / blockSize)] += keyScores[order[i]];
  }
}

/** Divides a row by its sum. No mass outside the own segment: it stays 0, never reaches a threshold, and every block is kept. */
function normalise(row: Float64Array): void {
  const total = row.reduce((a, b) => a + b, 0);
  if (total > 0) {
    row.forEach((mass, i) => (row[i] = mass / total));
  }
}

function softmax(row: Float64Array): void {
  const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  row.forEach((x, i) => (sum += row[i] = Math.exp(x - max)));
  row.forEach((x, i) => (row[i] = x / sum));
}
