import type {BlockGeometry} from './block_geometry.js';
import {firstVisibleBlock, rowsHavePositions, scoredBlocks} from './block_geometry.js';

/*
 * The default rule by which blocks are chosen (`estimate: 'sampled'`), the same on every backend. Not in the paper;
 * docs/decisions.md says what it was chosen over, on which models.
 *
 * *Order.* The keys of a complete segment are sorted by the attention that the first `orderRows` rows behind the segment pay
 * to them, by a softmax over the segment alone. No later row has a say.
 *
 * *Sample.* Of a block of queries every row meets every `sampleStride`-th key: row i of the block the slots j of the sorted
 * order with (j + phase(i)) divisible by `sampleStride`. Neighbouring rows turn through the phases, so that together they
 * meet every key. What a row pays to a block is `sampleStride` times what it pays to the block's keys in its sample, over
 * what it pays to all keys. Averages taken before the exponential miss the one row that needs one key; this does not.
 *
 * *All keys* of a row: those of its own segments and of the block of key 0, which always count, exactly; of the others
 * a fourth of its sample, 1 / `normaliserStride` of the keys. An error here is one factor on a row.
 *
 * *Forms.* Soft caps, slopes and masks count for the order and for the sample, windows for the sample: keys outside are none. Sinks do not
 * count: shares are of what goes to keys, so that a head whose sink takes most of its attention keeps more than it needs.
 *
 * *Score* of a block: the mean over the rows of what they pay to it, and `peakWeight` of the most that one pays. Blocks below
 * `leastScore` are skipped.
 */

/** Rows behind a segment that order its keys. */
export const orderRows = 32;
/** A row meets one key of so many; a power of two. */
export const sampleStride = 4;
/** A row's normaliser meets one key of so many: `sampleStride` squared. */
export const normaliserStride = sampleStride * sampleStride;
/** Weight of the most that one row pays, beside the mean of all rows. */
export const peakWeight = 0.1;

/** Which keys row i of a block of queries meets. A plain i would never meet every other diagonal of unsorted keys. */
export const phaseOf = (i: number): number => (i + Math.floor(i / sampleStride)) % sampleStride;

/** Whether the slot of a key in the sorted order is in the sample of a row of that phase. */
export const isSampled = (slot: number, phase: number): boolean => (slot + phase) % sampleStride === 0;

/** Slots of a tile: a phase meets 16 of them. */
export const tileSlots = 16 * sampleStride;

/** Whether a slot of a row's sample counts for the normaliser: those of one tile of four, by turns. */
export const isInNormaliser = (slot: number, phase: number): boolean =>
  (Math.floor(slot / tileSlots) + Math.floor(slot / (tileSlots * sampleStride)) + phase) % sampleStride === 0;

/** Score of blocks below which they are skipped, at a threshold of 0 and with `referenceKeys` visible keys. */
const scoreAtThreshold0 = 0.6;
const referenceKeys = 8192;

/**
 * Blocks of a query block are skipped below this score: 0.6 (1 − threshold)² √(8192 / keys seen). The more keys, the less a block
 * can hold of the attention that it must not lose. Under a causal mask keys count up to the end of the segment in which the
 * block's first row stands, whether they are there yet or not: a chunk of a prompt asks for what the whole prompt asks for. With a
 * window keys before it do not count.
 */
export function leastScore(geometry: BlockGeometry, causal: boolean, threshold: number, queryBlock: number): number {
  const {keyBlockSize, segmentSize, keyLength, window} = geometry;
  const blocks = scoredBlocks(geometry, causal, queryBlock) - firstVisibleBlock(geometry, queryBlock);
  const keys = causal || window !== undefined ? blocks * keyBlockSize + segmentSize : keyLength;
  return leastScoreScale(threshold) / Math.sqrt(keys);
}

/** `leastScore` times the root of the keys: what shaders are handed. */
export const leastScoreScale = (threshold: number): number =>
  scoreAtThreshold0 * (1 - threshold) ** 2 * Math.sqrt(referenceKeys);

/**
 * Query rows `[first, end)` that order the keys of a segment: under a causal mask the first that stand behind it, otherwise the
 * last of all; never padding. There may be none, and the segment then keeps its order.
 *
 * @param length keys of the batch entry that are not padding.
 */
export function orderRowRange(
  geometry: BlockGeometry,
  causal: boolean,
  segment: number,
  length: number,
): [first: number, end: number] {
  const {queryLength, queryOffset, segmentSize} = geometry;
  const offset = causal ? queryOffset : 0;
  const last = rowsHavePositions(geometry, causal) ? Math.max(0, Math.min(length - offset, queryLength)) : queryLength;
  const first = causal ? Math.max(0, (segment + 1) * segmentSize - offset) : Math.max(0, last - orderRows);
  return [Math.min(first, last), Math.min(first + orderRows, last)];
}
