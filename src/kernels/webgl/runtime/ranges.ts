import type {BlockGeometry} from '../../../attention/block_geometry.js';

/** Heads `[firstHead, firstHead + heads)` of `[batch * heads]`, which are worked on at a time. */
export interface HeadRange {
  firstHead: number;
  heads: number;
}

/** All heads in ranges of at most `atOnce`, or of one where that is less. */
export function headRanges({batch, heads}: BlockGeometry, atOnce: number): HeadRange[] {
  return rangesOf(batch * heads, atOnce).map(([firstHead, endHead]) => ({firstHead, heads: endHead - firstHead}));
}

/** `[0, count)` cut into ranges of at most `atOnce`, or of one where that is less. */
export function rangesOf(count: number, atOnce: number): Array<[first: number, end: number]> {
  const size = Math.max(1, Math.min(Math.floor(atOnce), count));
  return Array.from({length: Math.ceil(count / size)}, (_, i) => [i * size, Math.min((i + 1) * size, count)]);
}
