import {engine, type Tensor, type TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {attend} from '../../src/kernels/webgpu/attend';
import {blockMask} from '../../src/kernels/webgpu/block_mask';
import {permute} from '../../src/kernels/webgpu/permute';
import {SortKeysProgram} from '../../src/kernels/webgpu/sort_keys';
import {scoreBlocks} from '../../src/kernels/webgpu/score_blocks';
import {selectBlocks} from '../../src/kernels/webgpu/select_blocks';
import type {Stages} from './stages';

export function stages(backend: WebGPUBackend): Stages {
  const own = <T extends Tensor>(info: TensorInfo) => engine().makeTensorFromTensorInfo(info) as T;
  return {
    permute: (query, key, geometry, scale, sort) => {
      const {keyScores, keyIndices} = permute('experiments', backend, query, key, geometry, scale, sort, true);
      return {keyScores: own(keyScores), keyIndices: own(keyIndices)};
    },
    sortKeys: (keyScores, geometry) => own(new SortKeysProgram(keyScores, geometry, true).run(backend)),
    scoreBlocks: (query, key, order, geometry, scale) =>
      own(scoreBlocks(backend, query, key, order, geometry, scale, true, false)),
    selectBlocks: (scores, keyIndices, geometry, threshold) =>
      own(selectBlocks(backend, scores, keyIndices, geometry, threshold, true)),
    blockMask: (blockLists) => own(blockMask(backend, blockLists)),
    attend: (query, key, value, plan, geometry, scale) => {
      const attrs = {scale, causal: true, precision: 'float32' as const};
      return own(attend('experiments', backend, query, key, value, geometry, attrs, plan));
    },
  };
}
