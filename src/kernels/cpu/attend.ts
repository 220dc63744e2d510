import type {TypedArray} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../block_geometry.js';
import {dot, keyRow, lengthOf} from './permute.js';

/** What hides keys besides a causal mask. */
export interface HiddenKeys {
  /** int32 `[batch]`: keys from there on are padding. */
  keyLengths?: Int32Array;
  mask?: AttentionMask;
}

/** A mask that broadcasts to `[batch, heads, queryLength, keyLength]`. */
export interface AttentionMask {
  values: TypedArray;
  shape: number[];
  /** bool: whether a row may see a key. float32: what is added to the scaled score; −Infinity hides the key. */
  dtype: string;
}

/**
 * Stage 4, attend: float32 `[batch, heads, queryLength, valueDim]`. Softmax attention of each query row over the keys of
 * the blocks in its list, in float64. With a causal mask a row sees the keys whose original index is not above its own
 * position; a row that sees nothing gives zeros.
 *
 * Without lists and key order every key counts: exact attention.
 */
export function attend(
  query: Float32Array,
  key: Float32Array,
  value: Float32Array,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: {keyIndices: Int32Array; blockLists: Int32Array},
  {keyLengths, mask}: HiddenKeys = {},
): Float32Array {
  const {batch, heads, queryLength, keyLength, queryOffset, headDim, valueDim} = geometry;
  const {blockSize, queryBlocks, keyBlocks} = geometry;
  const output = new Float32Array(batch * heads * queryLength * valueDim);
  const positions = new Int32Array(keyLength);
  const weights = new Float64Array(keyLength);
  const sums = new Float64Array(valueDim);
  for (let head = 0; head < batch * heads; ++head) {
    const length = lengthOf(geometry, head, keyLengths);
    for (let row = 0; row < queryLength; ++row) {
      const queryStart = (head * queryLength + row) * headDim;
      const end = causal ? Math.min(length, queryOffset + row + 1) : length;
      const biasAt = mask && maskRow(mask, geometry, head, row);
      let visible = 0;
      let max = -Infinity;
      const see = (position: number) => {
        const bias = biasAt ? biasAt(position) : 0;
        if (position < end && bias !== -Infinity) {
          const keyStart = keyRow(geometry, head, position) * headDim;
          positions[visible] = position;
          weights[visible] = scale * dot(query, queryStart, key, keyStart, headDim) + bias;
          max = Math.max(max, weights[visible++]);
        }
      };
      if (plan) {
        const list = (head * queryBlocks + Math.floor(row / blockSize)) * (keyBlocks + 1);
        for (let entry = 1; entry <= plan.blockLists[list]; ++entry) {
          const start = plan.blockLists[list + entry] * blockSize;
          for (let i = start; i < Math.min(start + blockSize, keyLength); ++i) {
            see(plan.keyIndices[head * keyLength + i]);
          }
        }
      } else {
        for (let position = 0; position < end; ++position) {
          see(position);
        }
      }
      sums.fill(0);
      let sum = 0;
      for (let i = 0; i < visible; ++i) {
        const weight = Math.exp(weights[i] - max);
        sum += weight;
        const valueStart = keyRow(geometry, head, positions[i]) * valueDim;
        for (let d = 0; d < valueDim; ++d) {
          sums[d] += weight * value[valueStart + d];
        }
      }
      const outputStart = (head * queryLength + row) * valueDim;
      for (let d = 0; d < valueDim && visible > 0; ++d) {
        output[outputStart + d] = sums[d] / sum;
      }
    }
  }
  return output;
}

/** What the mask adds to the score of each key of a query row: −Infinity where it hides the key. */
function maskRow(
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
