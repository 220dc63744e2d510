import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {peakWeight} from '../../../src/attention/sampled_estimate';
import {attend} from '../../../src/kernels/webgpu/attend/attend';
import {blockLists} from '../../../src/kernels/webgpu/select/block_lists';
import {blockMask} from '../../../src/kernels/webgpu/select/block_mask';
import {permute} from '../../../src/kernels/webgpu/permute/permute';
import {sampledMass} from '../../../src/kernels/webgpu/select/sampled_mass';
import {SampledScoresProgram} from '../../../src/kernels/webgpu/select/sampled_scores';
import {scoreBlocks} from '../../../src/kernels/webgpu/select/score_blocks';
import {selectBlocks} from '../../../src/kernels/webgpu/select/select_blocks';
import {SortKeysProgram} from '../../../src/kernels/webgpu/permute/sort_keys';
import type {Inputs} from '../../reference/attention';
import type {StageRunner} from '../stage_runner';
import {stageShapes} from '../stage_runner';

export function webgpuStages(gpu: WebGPUBackend): StageRunner {
  let owned: TensorInfo[] = [];
  const own = (info: TensorInfo) => (owned.push(info), info);
  const upload = (values: Float32Array | Int32Array, shape: number[]) =>
    own(gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values));
  const read = async (info: TensorInfo) => (await gpu.read(own(info).dataId)) as Float32Array | Int32Array;
  const uploadInputs = ({query, key, value, queryShape, keyShape, valueShape}: Inputs) => ({
    query: upload(query, queryShape),
    key: upload(key, keyShape),
    value: upload(value, valueShape),
  });
  const uploadLengths = (lengths?: Int32Array) => lengths && upload(lengths, [lengths.length]);
  const freeing = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } finally {
      owned.forEach(({dataId}) => gpu.disposeData(dataId));
      owned = [];
    }
  };
  return {
    permute: (inputs, {geometry, scale, causal, keyLengths, estimate}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const lengths = uploadLengths(keyLengths);
        const rule = {permute: true, estimate};
        const {keyScores, keyIndices} = permute('test', gpu, query, key, geometry, scale, causal, rule, lengths);
        return {keyScores: await read(keyScores!), keyIndices: (await read(keyIndices)) as Int32Array};
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const scores = upload(keyScores, stageShapes(geometry).keyScores);
        return (await read(new SortKeysProgram(scores, geometry).run(gpu))) as Int32Array;
      }),
    scoreBlocks: (inputs, keyIndices, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const order = upload(keyIndices, stageShapes(geometry).keyIndices);
        return read(scoreBlocks(gpu, query, key, order, geometry, scale, causal, uploadLengths(keyLengths)));
      }),
    sampledScores: (inputs, keyIndices, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const order = upload(keyIndices, stageShapes(geometry).keyIndices);
        const lengths = uploadLengths(keyLengths);
        // In float32; test/kernels/webgpu/select/sampled_mass_matrix.test.ts compares what runs on matrix units.
        const mass = own(sampledMass('test', gpu, query, key, order, geometry, scale, causal, lengths, false));
        const weighted = (weight: number) => read(new SampledScoresProgram(mass, geometry, weight).run(gpu));
        return {scores: await weighted(peakWeight), means: await weighted(0)};
      }),
    selectBlocks: (scores, keyIndices, {geometry, causal, ...rule}) =>
      freeing(async () => {
        const shapes = stageShapes(geometry);
        const order = upload(keyIndices, shapes.keyIndices);
        const lists = selectBlocks(gpu, upload(scores, shapes.scores), order, geometry, causal, rule);
        const mask = own(blockMask(gpu, lists));
        return {
          blockMask: await read(mask),
          blockLists: await read(lists),
          listsOfMask: await read(blockLists(gpu, mask)),
        };
      }),
    attend: (inputs, plan, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const {query, key, value} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuPlan = plan && {
          keyIndices: upload(plan.keyIndices, shapes.keyIndices),
          blockLists: upload(plan.blockLists, shapes.blockLists),
        };
        const attrs = {scale, causal, precision: 'float32' as const};
        const hidden = {keyLengths: uploadLengths(keyLengths)};
        return read(attend('test', gpu, query, key, value, geometry, attrs, gpuPlan, hidden));
      }),
  };
}
