import {type Tensor, tensor} from '@tensorflow/tfjs-core';
import {attend} from '../../src/kernels/cpu/attend';
import {blockMask} from '../../src/kernels/cpu/block_mask';
import {permute} from '../../src/kernels/cpu/permute';
import {scoreBlocks} from '../../src/kernels/cpu/score_blocks';
import {selectBlocks} from '../../src/kernels/cpu/select_blocks';
import type {BlockGeometry} from '../../src/kernels/block_geometry';
import type {Stages} from './stages';

const floats = (x: Tensor) => x.dataSync() as Float32Array;
const integers = (x: Tensor) => x.dataSync() as Int32Array;

/** `[1, heads, permutedLength]` sorted in segments: the stage sorts by what it has computed itself. */
function sortSegments(
  keyScores: Float32Array,
  {heads, keyLength: length, segmentSize, permutedLength}: BlockGeometry,
): Int32Array {
  const keyIndices = Int32Array.from({length: heads * length}, (_, i) => i % length);
  for (let head = 0; head < heads; ++head) {
    const scores = keyScores.subarray(head * permutedLength, (head + 1) * permutedLength);
    for (let start = 0; start < permutedLength; start += segmentSize) {
      const first = head * length + start;
      keyIndices.subarray(first, first + segmentSize).sort((a, b) => scores[b] - scores[a] || a - b);
    }
  }
  return keyIndices;
}

export const stages: Stages = {
  permute: (query, key, geometry, scale, sort) => {
    const {heads, keyLength: length, permutedLength} = geometry;
    const {keyScores, keyIndices} = permute(floats(query), floats(key), geometry, scale, sort);
    return {
      keyScores: tensor(Float32Array.from(keyScores), [1, heads, permutedLength]),
      keyIndices: tensor(keyIndices, [1, heads, length]),
    };
  },
  sortKeys: (keyScores, geometry) =>
    tensor(sortSegments(floats(keyScores), geometry), [1, geometry.heads, geometry.keyLength]),
  scoreBlocks: (query, key, {keyScores, keyIndices}, geometry, scale) => {
    const order = {keyScores: Float64Array.from(floats(keyScores)), keyIndices: integers(keyIndices)};
    const scores = scoreBlocks(floats(query), floats(key), order, geometry, scale, true, false);
    return tensor(Float32Array.from(scores), [1, geometry.heads, geometry.queryBlocks, geometry.keyBlocks]);
  },
  selectBlocks: (scores, keyIndices, geometry, threshold) => {
    const lists = selectBlocks(floats(scores), integers(keyIndices), geometry, threshold, true);
    return tensor(lists, [1, geometry.heads, geometry.queryBlocks, geometry.keyBlocks + 1]);
  },
  blockMask: (blockLists, geometry) =>
    tensor(
      blockMask(integers(blockLists), geometry),
      [1, geometry.heads, geometry.queryBlocks, geometry.keyBlocks],
      'bool',
    ),
  attend: (query, key, value, {keyIndices, blockLists}, geometry, scale) => {
    const plan = {keyIndices: integers(keyIndices), blockLists: integers(blockLists)};
    return tensor(attend(floats(query), floats(key), floats(value), geometry, scale, true, plan), query.shape);
  },
};
