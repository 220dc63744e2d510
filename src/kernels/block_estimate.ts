import type {BlockGeometry} from './block_geometry.js';

/*
 * How blocks are estimated where `probeRows` is not 0, and how blocks that are skipped still count (`remainder`): the same on
 * every backend. Neither is in the paper; docs/experiments says what they bring.
 *
 * The *summary* of a key block is the mean and the variance, dimension by dimension, of its keys, the mean of its values, and
 * their number n. What a query row q pays to the block is estimated from it as
 *
 *   exp(scale · q · mean + min(scale² / 2 · q² · variance, varianceCap)) · n,
 *
 * the sum of exp(scale · q · k) over keys k that are spread normally around their mean. Without the variance the estimate is
 * too small (Jensen); where keys are not normal the correction can be far too large, so it is capped.
 *
 * A *probe row* is one of the rows of a query block that lie farthest from the block's mean query: what it pays to every
 * block is computed exactly, because a row that asks for one key far away is lost in any mean.
 */

/** Rows of a query block whose attention is estimated by summaries, evenly spaced. */
export const summaryRows = 16;

/** Most that the variance of a block's keys adds to a score, in nats. */
export const varianceCap = 4;

/** Weight of the largest share that a probe row pays, beside the mean share of all rows. */
export const peakWeight = 0.1;

/** First and last-plus-one row of a query block. */
export function queryBlockRows(
  {blockSize, queryLength}: BlockGeometry,
  queryBlock: number,
): [first: number, end: number] {
  return [queryBlock * blockSize, Math.min((queryBlock + 1) * blockSize, queryLength)];
}

/** The i-th of the evenly spaced rows of a query block; in a short block rows come more than once. */
export function summaryRow(geometry: BlockGeometry, queryBlock: number, i: number): number {
  const [first, end] = queryBlockRows(geometry, queryBlock);
  return first + Math.max(0, Math.floor(((i + 1) * (end - first)) / summaryRows) - 1);
}
