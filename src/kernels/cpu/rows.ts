import type {BlockGeometry} from '../../attention/block_geometry.js';
import type {AttentionMask, CPUCall} from './cpu_call.js';

/** Keys of a head's batch entry that are not padding. */
export function lengthOf({geometry: {heads, keyLength}, keyLengths}: CPUCall, head: number): number {
  return keyLengths ? Math.max(0, Math.min(keyLengths[Math.floor(head / heads)], keyLength)) : keyLength;
}

/** Row of the key (or value) tensor, seen as `[rows, headDim]`, that a query head reads at a position. */
export function keyRow(geometry: BlockGeometry, head: number, position: number): number {
  const {heads, keyValueHeads, keyLength} = geometry;
  const batch = Math.floor(head / heads);
  const keyHead = Math.floor((head % heads) / (heads / keyValueHeads));
  return (batch * keyValueHeads + keyHead) * keyLength + position;
}

/** Dot product of two rows, in float64. */
export function dot(a: ArrayLike<number>, aStart: number, b: ArrayLike<number>, bStart: number, size: number): number {
  let sum = 0;
  for (let i = 0; i < size; ++i) {
    sum += a[aStart + i] * b[bStart + i];
  }
  return sum;
}

/** The scaled product of a query row and the key at a position. */
export function productOf({query, key, geometry, scale}: CPUCall, head: number, row: number, position: number): number {
  const {queryLength, headDim} = geometry;
  const queryStart = (head * queryLength + row) * headDim;
  return scale * dot(query, queryStart, key, keyRow(geometry, head, position) * headDim, headDim);
}

/** The same under the soft cap. */
export function cappedScore(call: CPUCall, head: number, row: number, position: number): number {
  const {softCap} = call;
  const score = productOf(call, head, row, position);
  return softCap === undefined ? score : softCap * Math.tanh(score / softCap);
}

/** What the distance of a key adds to the score of a row (ALiBi). */
export function slopeBias({geometry, alibiSlopes}: CPUCall, head: number, row: number, position: number): number {
  const {heads, queryOffset} = geometry;
  // Without a causal mask keys stand on both sides; with one those after the row are not seen.
  return alibiSlopes ? -alibiSlopes[head % heads] * Math.abs(queryOffset + row - position) : 0;
}

/** What the mask adds to the score of each key of a query row: −Infinity where it hides the key. */
export function maskRow(
  {values, shape, dtype}: AttentionMask,
  {heads}: BlockGeometry,
  head: number,
  row: number,
): (position: number) => number {
  const [batches, maskHeads, rows, keys] = shape;
  const along = (size: number, index: number) => (size === 1 ? 0 : index);
  const entry = along(batches, Math.floor(head / heads)) * maskHeads + along(maskHeads, head % heads);
  const start = (entry * rows + along(rows, row)) * keys;
  return (position) => {
    const x = values[start + along(keys, position)];
    return dtype === 'bool' ? (x ? 0 : -Infinity) : x;
  };
}

/** The score of a query row with the key at a position, whether it sees the key or not; −Infinity where a mask hides it. */
export function scoreOf(call: CPUCall, head: number, row: number, position: number): number {
  const {mask, geometry} = call;
  const bias = mask ? maskRow(mask, geometry, head, row)(position) : 0;
  // What is hidden is not looked at: it may be no number.
  return bias === -Infinity
    ? bias
    : cappedScore(call, head, row, position) + slopeBias(call, head, row, position) + bias;
}

/** Positions `[first, end)` that a query row of a head may see. */
export function visibleRange(call: CPUCall, head: number, row: number): [first: number, end: number] {
  const {geometry, causal} = call;
  const {queryOffset, window = Infinity} = geometry;
  const position = queryOffset + row;
  const last = causal ? position : position + window - 1;
  return [Math.max(0, position - window + 1), Math.min(lengthOf(call, head), last + 1)];
}

/** A score of the head that has no key and no value. */
export const sinkOf = ({geometry, sinks}: CPUCall, head: number): number =>
  sinks ? sinks[head % geometry.heads] : -Infinity;

/** log Σ exp(score), that of a sink among them; −Infinity of nothing. */
export function logSumExp(scores: Float64Array, sink = -Infinity): number {
  const max = scores.reduce((most, score) => Math.max(most, score), sink);
  const sum = scores.reduce((all, score) => all + Math.exp(score - max), Math.exp(sink - max));
  return max === -Infinity ? max : max + Math.log(sum);
}

/** The weights of scores, which add up to 1 together with that of a sink; zeros where no score is above −Infinity. */
export function softmax(scores: Float64Array, sink = -Infinity): Float64Array {
  const weights = new Float64Array(scores.length);
  let max = sink;
  for (const score of scores) {
    max = Math.max(max, score);
  }
  if (max === -Infinity) return weights;
  let sum = Math.exp(sink - max);
  for (let i = 0; i < scores.length; ++i) {
    weights[i] = Math.exp(scores[i] - max);
    sum += weights[i];
  }
  for (let i = 0; i < scores.length; ++i) {
    weights[i] /= sum;
  }
  return weights;
}
