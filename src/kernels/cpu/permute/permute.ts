import type {PBSAttentionAttrs} from '../../../attention/attention_kernels.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {proxyRange} from '../../../attention/block_geometry.js';
import {segmentKeyScores} from './segment_key_scores.js';

export interface KeyOrder {
  /** float64 `[batch, heads, permutedLength]`: mean attention that some rows pay to each key. */
  keyScores: Float64Array;
  /** int32 `[batch, heads, keyLength]`: permuted position → original key. */
  keyIndices: Int32Array;
}

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by
 * index. Keys that are padding score 0, so that they stand last. Scores are those of {@link segmentKeyScores}, or with the
 * pooled estimate (paper section 3.2) the mean attention of the last query rows, the proxy rows, without a causal mask; then
 * a batch entry without proxy rows or without keys keeps its order, and `causal` counts with key lengths alone: it says which
 * rows are padding.
 */
export function permute(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  {permute: sort, estimate}: Pick<PBSAttentionAttrs, 'permute' | 'estimate'>,
  keyLengths?: Int32Array,
): KeyOrder {
  const {batch, heads, keyLength, segmentSize, permutedLength} = geometry;
  const scoreKeys = estimate === 'sampled' ? segmentKeyScores : proxyKeyScores;
  const keyScores = scoreKeys(query, key, geometry, scale, causal, keyLengths);
  const keyIndices = new Int32Array(batch * heads * keyLength);
  for (let head = 0; head < batch * heads; ++head) {
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    const order = keyIndices.subarray(head * keyLength, (head + 1) * keyLength);
    order.forEach((_, i) => (order[i] = i));
    if (sort) {
      for (let start = 0; start < permutedLength; start += segmentSize) {
        order.subarray(start, start + segmentSize).sort((a, b) => scores[b] - scores[a] || a - b);
      }
    }
  }
  return {keyScores, keyIndices};
}

function proxyKeyScores(
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  keyLengths?: Int32Array,
): Float64Array {
  const {batch, heads, permutedLength} = geometry;
  const keyScores = new Float64Array(batch * heads * permutedLength);
  for (let head = 0; head < batch * heads; ++head) {
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    addProxyAttention(scores, query, key, geometry, scale, head, causal, lengthOf(geometry, head, keyLengths));
  }
  return keyScores;
}

function addProxyAttention(
  scores: Float64Array,
  query: Float32Array,
  key: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  head: number,
  causal: boolean,
  length: number,
): void {
  const {queryLength, headDim, permutedLength} = geometry;
  const scoredKeys = Math.min(permutedLength, length);
  const keyStart = keyRow(geometry, head, 0) * headDim;
  const weights = new Float64Array(permutedLength);
  const [firstRow, endRow] = proxyRange(geometry, causal, length);
  for (let row = firstRow; row < endRow; ++row) {
    const queryStart = (head * queryLength + row) * headDim;
    let max = -Infinity;
    for (let i = 0; i < scoredKeys; ++i) {
      weights[i] = scale * dot(query, queryStart, key, keyStart + i * headDim, headDim);
      max = Math.max(max, weights[i]);
    }
    let sum = 0;
    for (let i = 0; i < scoredKeys; ++i) {
      weights[i] = Math.exp(weights[i] - max);
      sum += weights[i];
    }
    for (let i = 0; i < scoredKeys; ++i) {
      scores[i] += weights[i] / (sum * (endRow - firstRow));
    }
  }
}

/** Keys of a head's batch entry that are not padding. */
export function lengthOf({heads, keyLength}: BlockGeometry, head: number, keyLengths?: Int32Array): number {
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
