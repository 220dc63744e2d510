import type {BlockGeometry} from '../block_geometry.js';
import {scoredBlocks} from '../block_geometry.js';
import {summaryScore} from './probed_scores.js';
import {summarizeBlocks, summarizeValues} from './summarize_blocks.js';
import type {BlockPlan} from './visible_scores.js';

/** State of the online softmax of each query row: what it has seen. A row that has seen nothing: −Infinity and zeros. */
export interface AttentionState {
  /** float64 `[batch, heads, queryLength]`: largest score, and sum of exp(score − maximum). */
  maxima: Float64Array;
  sums: Float64Array;
  /** float64 `[batch, heads, queryLength, valueDim]`: values times exp(score − maximum), added up. */
  values: Float64Array;
}

/**
 * Part of stage 4, before the blocks of the lists: what each query row pays to the blocks that compete for it and are
 * skipped, by their summaries: a skipped block is one key with the weight of all of its keys (`block_estimate.ts`), and their
 * mean value. Blocks of segments that the row stands in are never skipped.
 */
export function attendRemainder(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  {keyIndices, blockLists}: BlockPlan,
  keyLengths?: Int32Array,
): AttentionState {
  const {batch, heads, queryLength, valueDim} = geometry;
  const summaries = summarizeBlocks(key, keyIndices, geometry, keyLengths);
  const valueMeans = summarizeValues(value, keyIndices, geometry, keyLengths);
  const maxima = new Float64Array(batch * heads * queryLength).fill(-Infinity);
  const sums = new Float64Array(batch * heads * queryLength);
  const values = new Float64Array(batch * heads * queryLength * valueDim);
  for (let row = 0; row < batch * heads * queryLength; ++row) {
    const skipped = skippedBlocks(geometry, causal, blockLists, summaries.counts, row).map((block) => ({
      block,
      score: summaryScore(query, row, summaries, block, geometry, scale),
    }));
    maxima[row] = skipped.reduce((max, {score}) => Math.max(max, score), -Infinity);
    for (const {block, score} of skipped) {
      const weight = Math.exp(score - maxima[row]);
      sums[row] += weight;
      for (let d = 0; d < valueDim; ++d) {
        values[row * valueDim + d] += weight * valueMeans[block * valueDim + d];
      }
    }
  }
  return {maxima, sums, values};
}

/**
 * The blocks, of `[batch, heads, keyBlocks]`, that compete for a query row of `[batch, heads, queryLength]` and are not in its
 * list; none that is all padding.
 */
export function skippedBlocks(
  geometry: BlockGeometry,
  causal: boolean,
  blockLists: Int32Array,
  counts: Int32Array,
  row: number,
): number[] {
  const {queryLength, blockSize, queryBlocks, keyBlocks} = geometry;
  const head = Math.floor(row / queryLength);
  const queryBlock = Math.floor((row % queryLength) / blockSize);
  const list = (head * queryBlocks + queryBlock) * (keyBlocks + 1);
  const kept = new Set(blockLists.subarray(list + 1, list + 1 + blockLists[list]));
  return Array.from({length: scoredBlocks(geometry, causal, queryBlock)}, (_, keyBlock) => keyBlock)
    .filter((keyBlock) => !kept.has(keyBlock) && counts[head * keyBlocks + keyBlock] > 0)
    .map((keyBlock) => head * keyBlocks + keyBlock);
}
