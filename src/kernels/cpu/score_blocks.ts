import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock, scoredBlocks} from '../block_geometry.js';
import type {KeyOrder} from './permute.js';
import {dot, keyRow} from './permute.js';

/**
 * Stage 2, score blocks (paper section 3.3): float64 `[batch, heads, blocks, blocks]`, the share of attention that a
 * query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1, or to 0 where
 * nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys. With `exactLastBlock`, query blocks that hold
 * proxy rows take the attention that those rows pay, known from stage 1; that needs a causal mask, because stage 1
 * knows complete segments alone.
 */
export function scoreBlocks(
  query: Float32Array,
  key: Float32Array,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
): Float64Array {
  const {batch, heads, length, headDim, blocks, permutedLength} = geometry;
  const scores = new Float64Array(batch * heads * blocks * blocks);
  for (let head = 0; head < batch * heads; ++head) {
    const order = keyIndices.subarray(head * length, (head + 1) * length);
    const pooledQuery = poolBlocks(query, geometry, (i) => head * length + i);
    const pooledKey = poolBlocks(key, geometry, (i) => keyRow(geometry, head, order[i]));
    const proxyScores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    for (let queryBlock = 0; queryBlock < blocks; ++queryBlock) {
      const start = (head * blocks + queryBlock) * blocks;
      const row = scores.subarray(start, start + scoredBlocks(geometry, causal, queryBlock));
      if (exactLastBlock && causal && queryBlock >= firstProxyBlock(geometry)) {
        proxyMass(row, proxyScores, order, geometry);
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
function poolBlocks(x: Float32Array, geometry: BlockGeometry, rowAt: (i: number) => number): Float64Array {
  const {length, headDim, blockSize, blocks} = geometry;
  const pooled = new Float64Array(blocks * headDim);
  for (let i = 0; i < length; ++i) {
    const source = rowAt(i) * headDim;
    const target = Math.floor(i / blockSize) * headDim;
    for (let d = 0; d < headDim; ++d) {
      pooled[target + d] += x[source + d] / blockSize;
    }
  }
  return pooled;
}

/** Attention of the proxy rows to each block of the row, as a share of what they pay to all of them. */
function proxyMass(row: Float64Array, keyScores: Float64Array, order: Int32Array, {blockSize}: BlockGeometry): void {
  let total = 0;
  for (let i = 0; i < row.length * blockSize; ++i) {
    row[Math.floor(i / blockSize)] += keyScores[order[i]];
    total += keyScores[order[i]];
  }
  // No mass outside the own segment: the row stays 0, never reaches a threshold, and every block is kept.
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
