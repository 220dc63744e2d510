import type {BlockGeometry} from '../../attention/block_geometry.js';
import type {CPUCall} from './cpu_call.js';

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
export function scoreOf({query, key, geometry, scale}: CPUCall, head: number, row: number, position: number): number {
  const {queryLength, headDim} = geometry;
  const queryStart = (head * queryLength + row) * headDim;
  return scale * dot(query, queryStart, key, keyRow(geometry, head, position) * headDim, headDim);
}

/** The weights of scores, which add up to 1. */
export function softmax(scores: Float64Array): Float64Array {
  const weights = new Float64Array(scores.length);
  let max = -Infinity;
  for (const score of scores) {
    max = Math.max(max, score);
  }
  let sum = 0;
  for (let i = 0; i < scores.length; ++i) {
    weights[i] = Math.exp(scores[i] - max);
    sum += weights[i];
  }
  for (let i = 0; i < scores.length; ++i) {
    weights[i] /= sum;
  }
  return weights;
}
