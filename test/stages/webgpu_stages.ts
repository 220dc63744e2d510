import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {attend} from '../../src/kernels/webgpu/attend';
import {blockMask} from '../../src/kernels/webgpu/block_mask';
import {permute, SortKeysProgram} from '../../src/kernels/webgpu/permute';
import {scoreBlocks} from '../../src/kernels/webgpu/score_blocks';
import {selectBlocks} from '../../src/kernels/webgpu/select_blocks';
import type {Inputs} from '../reference';
import type {StageRunner} from './stage_runner';
import {stageShapes} from './stage_runner';

export function webgpuStages(gpu: WebGPUBackend): StageRunner {
  let owned: TensorInfo[] = [];
  const own = (info: TensorInfo) => (owned.push(info), info);
  const upload = (values: Float32Array | Int32Array, shape: number[]) =>
    own(gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values));
  const read = async (info: TensorInfo) => (await gpu.read(own(info).dataId)) as Float32Array | Int32Array;
  const uploadInputs = ({query, key, value, queryShape, keyShape}: Inputs) => ({
    query: upload(query, queryShape),
    key: upload(key, keyShape),
    value: upload(value, keyShape),
  });
  const uploadScores = (scores: ArrayLike<number>, shape: number[]) => upload(Float32Array.from(scores), shape);
  const freeing = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } finally {
      owned.forEach(({dataId}) => gpu.disposeData(dataId));
      owned = [];
    }
  };
  return {
    permute: (inputs, {geometry, scale}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const {keyScores, keyIndices} = permute('test', gpu, query, key, geometry, scale, true);
        return {keyScores: await read(keyScores), keyIndices: (await read(keyIndices)) as Int32Array};
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const scores = upload(keyScores, stageShapes(geometry).keyScores);
        return (await read(new SortKeysProgram(scores, geometry, true).run(gpu))) as Int32Array;
      }),
    scoreBlocks: (inputs, order, {geometry, scale, causal, exactLastBlock}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuOrder = {
          keyScores: uploadScores(order.keyScores, shapes.keyScores),
          keyIndices: upload(order.keyIndices, shapes.keyIndices),
        };
        return read(scoreBlocks(gpu, query, key, gpuOrder, geometry, scale, causal, exactLastBlock));
      }),
    chooseProbeRows: () => Promise.reject(new Error('not yet')),
    probedScores: () => Promise.reject(new Error('not yet')),
    selectBlocks: (scores, keyIndices, {geometry, threshold, causal}) =>
      freeing(async () => {
        const shapes = stageShapes(geometry);
        const indices = upload(keyIndices, shapes.keyIndices);
        const lists = selectBlocks(gpu, upload(scores, shapes.scores), indices, geometry, threshold, causal);
        return {blockMask: await read(blockMask(gpu, lists)), blockLists: await read(lists)};
      }),
    attend: (inputs, plan, {geometry, scale, causal}) =>
      freeing(async () => {
        const {query, key, value} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuPlan = plan && {
          keyIndices: upload(plan.keyIndices, shapes.keyIndices),
          blockLists: upload(plan.blockLists, shapes.blockLists),
        };
        const attrs = {scale, causal, precision: 'float32' as const};
        return read(attend('test', gpu, query, key, value, geometry, attrs, gpuPlan));
      }),
  };
}
