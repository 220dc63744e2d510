import type {PBSAttentionAttrs} from './attention_kernels.js';
import type {BlockGeometry} from './block_geometry.js';
import {firstVisibleBlock, isExact, scoredBlocks, seesFirstKey, visibleBlocks} from './block_geometry.js';
import {normaliserStride, orderRows, sampleStride} from './sampled_estimate.js';

/**
 * What the parts of attention cost on a backend, in milliseconds; measured, beside the kernels of the backend. A head
 * counts once for each sequence of the batch.
 */
export interface AttentionCosts {
  /** Multiply-adds a millisecond of exact attention. */
  multiplyAdds: number;
  /** Time of block-sparse attention over that of exact attention with as many multiply-adds. */
  sparseFactor: number;
  /** To record one program, and the programs of block-sparse attention by each estimate; exact attention is one. */
  record: number;
  programs: number;
  sampledPrograms: number;
  /** What the stages before attention take at the least. */
  fixed: number;
  /** A multiply-add of a row that orders keys with one of them, which is computed twice. */
  proxyMultiplyAdd: number;
  /** A multiply-add of a query row with a key of its sample. */
  sampleMultiplyAdd: number;
  /** To pool one value of a query head or of the keys that it reads. */
  pooledValue: number;
  /** To score a pair of blocks, a value of the head. */
  blockPairValue: number;
  /** To compare a block with another in the list of a third. */
  blockTriple: number;
}

/** Past this length nothing is known of real data: the share of kept blocks is taken to stay. */
const longestMeasured = 32_768;
/**
 * How fast the share of kept blocks falls with the length, over 1 - threshold. With it the density is 72, 52, 33 and 19%
 * at 2,048 to 16,384 tokens where the model of the demo kept 70, 52, 33 and 19.5% with threshold 0.9; and 39, 23 and 12%
 * from 4,096 tokens on where it kept 39, 23 and 14% with 0.8. Other models keep more: 58% at 8,192 tokens in the paper.
 */
const fallPerToken = 0.0034;
/**
 * The same of the sampled estimate, over (1 - threshold) and the root of the length: with threshold 0.9 it gives 31, 22
 * and 16% at 8,192, 16,384 and 32,640 tokens, as Qwen2.5-Coder-0.5B kept (docs/experiments/real).
 */
const fallPerRootOfLength = 0.327;
/**
 * Sparse attention must be expected to be this much faster, as it is an estimate. No more: an error of some percent on either side should not lose a tenth.
 */
export const leastGain = 1.05;

type Rules = Pick<PBSAttentionAttrs, 'threshold' | 'causal' | 'estimate'> &
  Partial<Pick<PBSAttentionAttrs, 'expectedDensity'>>;
type Auto = Rules & Pick<PBSAttentionAttrs, 'auto'>;

/** Why exact attention runs: the threshold is 1, there is one segment, or `auto` does not expect blocks to pay. */
export type ExactReason = 'threshold' | 'length' | 'auto';

export function whyExact(geometry: BlockGeometry, attrs: Auto, costs: AttentionCosts): ExactReason | undefined {
  if (isExact(geometry, attrs)) {
    return attrs.threshold >= 1 ? 'threshold' : 'length';
  }
  return attrs.auto && !sparsePays(geometry, attrs, costs) ? 'auto' : undefined;
}

/** Whether block-sparse attention is expected to be faster than exact attention. */
export function sparsePays(geometry: BlockGeometry, attrs: Rules, costs: AttentionCosts): boolean {
  return leastGain * sparseTime(geometry, attrs, costs) < exactTime(geometry, attrs.causal, costs);
}

/** Milliseconds that exact attention takes. */
export function exactTime(geometry: BlockGeometry, causal: boolean, costs: AttentionCosts): number {
  const {batch, heads, headDim, valueDim} = geometry;
  const pairs = visiblePairs(geometry, causal);
  return Math.max(costs.record, (batch * heads * pairs * (headDim + valueDim)) / costs.multiplyAdds);
}

/** Pairs of a row and a key that it sees, of a head. */
function visiblePairs(
  {queryLength, keyLength, queryOffset, window = Infinity}: BlockGeometry,
  causal: boolean,
): number {
  if (!causal) {
    return queryLength * Math.min(keyLength, 2 * window - 1);
  }
  // Rows that see less than a window come first.
  const short = Math.min(Math.max(window - queryOffset, 0), queryLength);
  return short * (queryOffset + (short + 1) / 2) + (short < queryLength ? (queryLength - short) * window : 0);
}

/** Milliseconds that block-sparse attention is expected to take, its stages before attention included. */
export function sparseTime(geometry: BlockGeometry, rules: Rules, costs: AttentionCosts): number {
  return timeOfBlocks(geometry, expectedBlocks(geometry, rules), rules, costs);
}

/** Milliseconds that block-sparse attention takes if it keeps so many of the visible blocks of a head. */
export function timeOfBlocks(
  geometry: BlockGeometry,
  {kept, visible}: {kept: number; visible: number},
  {estimate}: Pick<Rules, 'estimate'>,
  costs: AttentionCosts,
): number {
  const {batch, heads, headDim, valueDim} = geometry;
  const values = batch * heads * kept * pairsOfBlocks(geometry) * (headDim + valueDim);
  const attend = (values * costs.sparseFactor) / costs.multiplyAdds;
  const programs = estimate === 'sampled' ? costs.sampledPrograms : costs.programs;
  const {order, pool, score, select} = timesOfPlan(geometry, visible, estimate, costs);
  const device = costs.fixed + attend + order + pool + score + select;
  // Recording goes on while the device works: what takes longer counts.
  return Math.max(programs * costs.record, device);
}

/** Pairs of a query and a key in a pair of blocks. */
const pairsOfBlocks = ({blockSize, queryLength, keyBlockSize}: BlockGeometry) =>
  Math.min(blockSize, queryLength) * keyBlockSize;

/** Milliseconds that the parts of a plan take: to order keys, to pool blocks, to score them and to select them. */
export interface PlanTimes {
  order: number;
  pool: number;
  score: number;
  select: number;
}

export function planTimes(
  geometry: BlockGeometry,
  {causal, estimate}: Pick<Rules, 'causal' | 'estimate'>,
  costs: AttentionCosts,
): PlanTimes {
  return timesOfPlan(geometry, countBlocks(geometry, causal).visible, estimate, costs);
}

function timesOfPlan(
  geometry: BlockGeometry,
  visible: number,
  estimate: Rules['estimate'],
  costs: AttentionCosts,
): PlanTimes {
  const {batch, heads, queryLength, keyLength, headDim, queryBlocks, keyBlocks, permutedLength, proxyRows} = geometry;
  const rows = estimate === 'sampled' ? Math.min(orderRows, queryLength) : proxyRows;
  const all = batch * heads;
  const order = all * rows * permutedLength * headDim * costs.proxyMultiplyAdd;
  if (estimate === 'sampled') {
    const sampled = all * visible * pairsOfBlocks(geometry) * headDim * (1 / sampleStride + 1 / normaliserStride);
    return {order, pool: 0, score: sampled * costs.sampleMultiplyAdd, select: 0};
  }
  return {
    order,
    // A value of the query and one of the keys are one pooled value.
    pool: all * ((queryLength + keyLength) / 2) * headDim * costs.pooledValue,
    score: all * visible * headDim * costs.blockPairValue,
    select: all * queryBlocks * keyBlocks ** 2 * costs.blockTriple,
  };
}

/**
 * Blocks of a head: those that a query may see, and those of them that are expected to be kept: by the density that was measured on
 * the model, or what the rules keep and a share of the others.
 */
export function expectedBlocks(
  geometry: BlockGeometry,
  {threshold, causal, estimate, expectedDensity = 0}: Rules,
): {kept: number; visible: number} {
  const {fewest, visible} = countBlocks(geometry, causal);
  if (expectedDensity > 0) {
    return {kept: Math.max(fewest, visible * expectedDensity), visible};
  }
  const length = Math.min(geometry.keyLength, geometry.window ?? Infinity, longestMeasured);
  const fall = estimate === 'sampled' ? fallPerRootOfLength * Math.sqrt(length) : fallPerToken * length;
  const share = 1 / (1 + fall * (1 - threshold));
  return {kept: fewest + (visible - fewest) * share, visible};
}

/** Blocks of a head: those that a query may see, and the fewest that selection can keep of them. */
export function countBlocks(geometry: BlockGeometry, causal: boolean): {fewest: number; visible: number} {
  let [fewest, visible] = [0, 0];
  for (let queryBlock = 0; queryBlock < geometry.queryBlocks; ++queryBlock) {
    const seen = visibleBlocks(geometry, causal, queryBlock);
    const competing = scoredBlocks(geometry, causal, queryBlock);
    const first = firstVisibleBlock(geometry, queryBlock);
    // Those that do not compete, the own segment's under a causal mask; and the block of key 0 where it is seen.
    fewest += seen - competing + (competing > 0 && seesFirstKey(geometry, queryBlock) ? 1 : 0);
    visible += seen - Math.min(first, seen);
  }
  return {fewest, visible};
}
