import type {TypedArray} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from './block_geometry.js';
import {visibleBlocks} from './block_geometry.js';

/** The plan of exact attention: keys in their own order, every visible block selected, so all attention kept. */
export function exactPlan(
  geometry: BlockGeometry,
  causal: boolean,
): {keyIndices: Int32Array; blockMask: TypedArray; keptMass: Float32Array} {
  const {batch, heads, length, blocks} = geometry;
  const keyIndices = new Int32Array(batch * heads * length);
  for (let i = 0; i < keyIndices.length; ++i) {
    keyIndices[i] = i % length;
  }
  const blockMask = new Uint8Array(batch * heads * blocks * blocks);
  for (let row = 0; row < batch * heads * blocks; ++row) {
    blockMask.fill(1, row * blocks, row * blocks + visibleBlocks(geometry, causal, row % blocks));
  }
  return {keyIndices, blockMask, keptMass: new Float32Array(batch * heads * blocks).fill(1)};
}
