import {firstVisibleBlock, scoredBlocks, seesFirstKey, visibleBlocks} from '../../../attention/block_geometry.js';
import {
  isInNormaliser,
  isSampled,
  normaliserStride,
  peakWeight,
  phaseOf,
  sampleStride,
} from '../../../attention/sampled_estimate.js';
import type {CPUCall} from '../cpu_call.js';
import {lengthOf, scoreOf, visibleRange} from '../rows.js';

/** What the rows of each query block pay to each key block that competes for it: float64 `[batch, heads, queryBlocks, keyBlocks]`. */
export interface SampledMass {
  /** Mean over the rows. 0 for blocks that do not compete. */
  means: Float64Array;
  /** The most that one row pays. */
  peaks: Float64Array;
}

/** Stage 2, score blocks, by the sampled estimate (`sampled_estimate.ts`). Of forms, sinks alone do not count. */
export function sampledMass(call: CPUCall, keyIndices: Int32Array): SampledMass {
  const {geometry, causal} = call;
  const {batch, heads, queryLength, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  const means = new Float64Array(batch * heads * queryBlocks * keyBlocks);
  const peaks = new Float64Array(means.length);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(call, head);
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    const sinkBlock = Math.floor(order.indexOf(0) / keyBlockSize);
    for (let queryBlock = 0; queryBlock < queryBlocks; ++queryBlock) {
      const start = (head * queryBlocks + queryBlock) * keyBlocks;
      const first = firstVisibleBlock(geometry, queryBlock) * keyBlockSize;
      const seesSink = seesFirstKey(geometry, queryBlock);
      const competing = Math.min(scoredBlocks(geometry, causal, queryBlock) * keyBlockSize, length);
      const visible = Math.min(visibleBlocks(geometry, causal, queryBlock) * keyBlockSize, keyLength);
      const rows = Math.min(blockSize, queryLength - queryBlock * blockSize);
      for (let i = 0; i < rows; ++i) {
        const row = queryBlock * blockSize + i;
        const [firstSeen, end] = visibleRange(call, head, row);
        const phase = phaseOf(i);
        const normaliser: Array<{score: number; weight: number}> = [];
        const sampled: Array<{block: number; score: number}> = [];
        for (let slot = first; slot < visible; ++slot) {
          const block = Math.floor(slot / keyBlockSize);
          const competes = slot < competing;
          const isExact = !competes || (seesSink && block === sinkBlock);
          const inSample = isSampled(slot, phase);
          if (order[slot] < firstSeen || order[slot] >= end || !(isExact || inSample)) {
            continue;
          }
          const score = scoreOf(call, head, row, order[slot]);
          // Hidden by a mask.
          if (score === -Infinity) continue;
          if (isExact || isInNormaliser(slot, phase)) {
            normaliser.push({score, weight: isExact ? 1 : normaliserStride});
          }
          if (competes && inSample) {
            sampled.push({block, score});
          }
        }
        const logSum = logSumOf(normaliser);
        const paid = new Map<number, number>();
        for (const {block, score} of sampled) {
          paid.set(block, (paid.get(block) ?? 0) + sampleStride * Math.exp(score - logSum));
        }
        // Where a row's normaliser missed what it pays most to, a share can come out above 1.
        paid.forEach((share, block) => {
          means[start + block] += Math.min(share, 1) / rows;
          peaks[start + block] = Math.max(peaks[start + block], Math.min(share, 1));
        });
      }
    }
  }
  return {means, peaks};
}

/** The scores that {@link selectBlocks} chooses by. */
export function sampledScores({means, peaks}: SampledMass): Float64Array {
  return means.map((mean, i) => mean + peakWeight * peaks[i]);
}

/** log Σ weight · exp(score), whatever the scores. */
function logSumOf(terms: Array<{score: number; weight: number}>): number {
  const max = terms.reduce((most, {score}) => Math.max(most, score), -Infinity);
  return max + Math.log(terms.reduce((sum, {score, weight}) => sum + weight * Math.exp(score - max), 0));
}
