import {queryBlockRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';

/**
 * Part of stage 2: int32 `[batch, heads, queryBlocks, probeRows]`, the rows of each query block that lie farthest from the
 * block's mean query, farthest first, equal distances by index. A block of fewer rows repeats its first.
 */
export function chooseProbeRows(query: Float32Array, geometry: BlockGeometry, probeRows: number): Int32Array {
  const {batch, heads, queryLength, queryBlocks} = geometry;
  const probes = new Int32Array(batch * heads * queryBlocks * probeRows);
  for (let block = 0; block < batch * heads * queryBlocks; ++block) {
    const [first, end] = queryBlockRows(geometry, block % queryBlocks);
    const start = Math.floor(block / queryBlocks) * queryLength;
    const distances = distancesFromMean(query, start + first, start + end, geometry.headDim);
    const rows = Array.from(distances, (_, i) => i).sort((a, b) => distances[b] - distances[a] || a - b);
    for (let i = 0; i < probeRows; ++i) {
      probes[block * probeRows + i] = first + rows[i < rows.length ? i : 0];
    }
  }
  return probes;
}

/** Squared distances of rows `[first, end)` from their mean. */
function distancesFromMean(x: Float32Array, first: number, end: number, size: number): Float64Array {
  const mean = new Float64Array(size);
  for (let i = first * size; i < end * size; ++i) {
    mean[i % size] += x[i] / (end - first);
  }
  const distances = new Float64Array(end - first);
  for (let i = first * size; i < end * size; ++i) {
    distances[Math.floor(i / size) - first] += (x[i] - mean[i % size]) ** 2;
  }
  return distances;
}
