import type {BlockGeometry} from '../block_geometry.js';

export interface KeyOrder {
  /** float64 `[batch, heads, permutedLength]`: mean attention that the proxy rows pay to each key. */
  keyScores: Float64Array;
  /** int32 `[batch, heads, length]`: permuted position → original key. */
  keyIndices: Int32Array;
}

/**
 * Stage 1, permute (paper section 3.2): scores the keys of the complete segments by the mean attention of the last
 * query rows, without a causal mask, and sorts each segment by descending score, equal scores by index.
 */
export function permute(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  sort: boolean,
): KeyOrder {
  const {batch, heads, length, segmentSize, permutedLength} = geometry;
  const keyScores = new Float64Array(batch * heads * permutedLength);
  const keyIndices = new Int32Array(batch * heads * length);
  for (let head = 0; head < batch * heads; ++head) {
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    scoreKeys(scores, query, key, geometry, scale, head);
    const order = keyIndices.subarray(head * length, (head + 1) * length);
    order.forEach((_, i) => (order[i] = i));
    if (sort) {
      for (let start = 0; start < permutedLength; start += segmentSize) {
        order.subarray(start, start + segmentSize).sort((a, b) => scores[b] - scores[a] || a - b);
      }
    }
  }
  return {keyScores, keyIndices};
}

function scoreKeys(
  scores: Float64Array,
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  head: number,
): void {
  const {length, headDim, permutedLength, proxyRows} = geometry;
  const keyStart = keyRow(geometry, head, 0) * headDim;
  const weights = new Float64Array(permutedLength);
  for (let row = length - proxyRows; row < length; ++row) {
    const queryStart = (head * length + row) * headDim;
    let max = -Infinity;
    for (let i = 0; i < permutedLength; ++i) {
      weights[i] = scale * dot(query, queryStart, key, keyStart + i * headDim, headDim);
      max = Math.max(max, weights[i]);
    }
    let sum = 0;
    for (let i = 0; i < permutedLength; ++i) {
      weights[i] = Math.exp(weights[i] - max);
      sum += weights[i];
    }
    for (let i = 0; i < permutedLength; ++i) {
      scores[i] += weights[i] / (sum * proxyRows);
    }
  }
}

/** Row of the key (or value) tensor, seen as `[rows, headDim]`, that a query head reads at a position. */
export function keyRow(geometry: BlockGeometry, head: number, position: number): number {
  const {heads, keyValueHeads, length} = geometry;
  const batch = Math.floor(head / heads);
  const keyHead = Math.floor((head % heads) / (heads / keyValueHeads));
  return (batch * keyValueHeads + keyHead) * length + position;
}

/** Dot product of two rows, in float64. */
export function dot(a: ArrayLike<number>, aStart: number, b: ArrayLike<number>, bStart: number, size: number): number {
  let sum = 0;
  for (let i = 0; i < size; ++i) {
    sum += a[aStart + i] * b[bStart + i];
  }
  return sum;
}
