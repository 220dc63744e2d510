import type {TypedArray} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from './block_geometry.js';
import {visibleBlocks} from './block_geometry.js';

/** The plan of exact attention: keys in their own order, every visible block selected, so all attention kept. */
export function exactPlan(
  geometry: BlockGeometry,
  causal: boolean,
): {keyIndices: Int32Array; blockMask: TypedArray; keptMass: Float32Array} {
  const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
  const keyIndices = new Int32Array(batch * heads * keyLength);
  for (let i = 0; i < keyIndices.length; ++i) {
    keyIndices[i] = i % keyLength;
  }
  const blockMask = new Uint8Array(batch * heads * queryBlocks * keyBlocks);
  for (let row = 0; row < batch * heads * queryBlocks; ++row) {
    const start = row * keyBlocks;
    blockMask.fill(1, start, start + visibleBlocks(geometry, causal, row % queryBlocks));
  }
  return {keyIndices, blockMask, keptMass: new Float32Array(batch * heads * queryBlocks).fill(1)};
}
