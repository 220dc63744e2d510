import {peakWeight, summaryRow, summaryRows, varianceCap} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock, scoredBlocks} from '../block_geometry.js';
import {blockLogSums, logSumExp} from './block_log_sums.js';
import type {KeyOrder} from './permute.js';
import {lengthOf} from './permute.js';
import {chooseProbeRows} from './probe_rows.js';
import {proxyMass} from './score_blocks.js';
import type {BlockSummaries} from './summarize_blocks.js';
import {summarizeBlocks} from './summarize_blocks.js';

/**
 * The other form of stage 2, where `probeRows` is not 0 (not in the paper): scores as {@link scoreBlocks} gives them, but
 * shares of all that a query block pays, its own segment included; what is missing to 1 in a row goes to that segment.
 *
 * The score of a block is what the block's rows pay to it in the mean, and a tenth of the most that one of the probe rows
 * pays. The mean is estimated by summaries, or, with `exactLastBlock`, known from stage 1.
 */
export function probedScores(
  query: Float32Array,
  key: Float32Array,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  probeRows: number,
  keyLengths?: Int32Array,
): Float64Array {
  const {batch, heads, keyLength, blockSize, queryBlocks, keyBlocks, permutedLength} = geometry;
  const summaries = summarizeBlocks(key, keyIndices, geometry, keyLengths);
  const evenRows = Int32Array.from({length: batch * heads * queryBlocks * summaryRows}, (_, i) =>
    summaryRow(geometry, Math.floor(i / summaryRows) % queryBlocks, i % summaryRows),
  );
  const probes = chooseProbeRows(query, geometry, probeRows);
  const logSums = (rows: Int32Array, ownSegment: boolean) =>
    blockLogSums(query, key, rows, keyIndices, geometry, scale, causal, ownSegment, keyLengths);
  const ownLogSums = logSums(evenRows, true);
  const probeLogSums = logSums(probes, false);
  const scores = new Float64Array(batch * heads * queryBlocks * keyBlocks);
  for (let block = 0; block < batch * heads * queryBlocks; ++block) {
    const queryBlock = block % queryBlocks;
    const head = Math.floor(block / queryBlocks);
    const length = lengthOf(geometry, head, keyLengths);
    const competing = Math.min(scoredBlocks(geometry, causal, queryBlock), Math.ceil(length / blockSize));
    const row = scores.subarray(block * keyBlocks, block * keyBlocks + competing);
    if (exactLastBlock && causal && queryBlock >= firstProxyBlock(geometry, length)) {
      const proxyScores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
      proxyMass(row, proxyScores, keyIndices.subarray(head * keyLength, (head + 1) * keyLength), geometry);
    } else {
      for (let i = block * summaryRows; i < (block + 1) * summaryRows; ++i) {
        const logs = ownLogSums.slice(i * keyBlocks, (i + 1) * keyBlocks);
        const queryRow = head * geometry.queryLength + evenRows[i];
        row.forEach((_, keyBlock) => {
          logs[keyBlock] = summaryScore(query, queryRow, summaries, head * keyBlocks + keyBlock, geometry, scale);
        });
        addShares(row, logs, 1 / summaryRows);
      }
    }
    const peaks = new Float64Array(competing);
    for (let i = block * probeRows; i < (block + 1) * probeRows; ++i) {
      const shares = new Float64Array(competing);
      addShares(shares, probeLogSums.subarray(i * keyBlocks, (i + 1) * keyBlocks), 1);
      shares.forEach((share, keyBlock) => (peaks[keyBlock] = Math.max(peaks[keyBlock], share)));
    }
    row.forEach((mean, keyBlock) => (row[keyBlock] = (mean + peakWeight * peaks[keyBlock]) / (1 + peakWeight)));
  }
  return scores;
}

/**
 * Logarithm of what a query row pays to a block by its summary (see `block_estimate.ts`); −Infinity for a block of padding.
 *
 * @param queryRow row of the query tensor, seen as `[rows, headDim]`; `block` likewise of the summaries.
 */
export function summaryScore(
  query: Float32Array,
  queryRow: number,
  {means, variances, counts}: BlockSummaries,
  block: number,
  {headDim}: BlockGeometry,
  scale: number,
): number {
  let mean = 0;
  let variance = 0;
  for (let d = 0; d < headDim; ++d) {
    const q = scale * query[queryRow * headDim + d];
    mean += q * means[block * headDim + d];
    variance += (q * q * variances[block * headDim + d]) / 2;
  }
  return mean + Math.min(variance, varianceCap) + Math.log(counts[block]);
}

/** Adds `weight` times the softmax of `logs`, over all of them, to the blocks that compete. */
function addShares(row: Float64Array, logs: Float64Array, weight: number): void {
  const total = logSumExp(logs);
  row.forEach((_, keyBlock) => {
    if (logs[keyBlock] > -Infinity) {
      row[keyBlock] += weight * Math.exp(logs[keyBlock] - total);
    }
  });
}
