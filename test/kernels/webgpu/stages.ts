import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {peakWeight} from '../../../src/attention/sampled_estimate';
import {attend} from '../../../src/kernels/webgpu/attend/attend';
import {HeadFormsProgram} from '../../../src/kernels/webgpu/head_forms';
import {blockLists} from '../../../src/kernels/webgpu/select/block_lists';
import {blockMask} from '../../../src/kernels/webgpu/select/block_mask';
import {permute} from '../../../src/kernels/webgpu/permute/permute';
import {sampledMass} from '../../../src/kernels/webgpu/select/sampled_mass';
import {SampledScoresProgram} from '../../../src/kernels/webgpu/select/sampled_scores';
import {scoreBlocks} from '../../../src/kernels/webgpu/select/score_blocks';
import {selectBlocks} from '../../../src/kernels/webgpu/select/select_blocks';
import {SortKeysProgram} from '../../../src/kernels/webgpu/permute/sort_keys';
import type {WebGPUCall} from '../../../src/kernels/webgpu/webgpu_call';
import type {Inputs} from '../../reference/attention';
import type {StageOptions, StageRunner} from '../stage_runner';
import {stageShapes} from '../stage_runner';

export function webgpuStages(gpu: WebGPUBackend): StageRunner {
  let owned: TensorInfo[] = [];
  const own = (info: TensorInfo) => (owned.push(info), info);
  const upload = (values: Float32Array | Int32Array, shape: number[]) =>
    own(gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values));
  const read = async (info: TensorInfo) => (await gpu.read(own(info).dataId)) as Float32Array | Int32Array;
  const callOf = (
    {query, key, value, queryShape, keyShape, valueShape}: Inputs,
    {geometry, scale, causal, softCap, keyLengths, ...ofHeads}: StageOptions,
  ): WebGPUCall => {
    const [lengths, alibiSlopes, sinks] = [keyLengths, ofHeads.alibiSlopes, ofHeads.sinks].map(
      (x) => x && upload(x, [x.length]),
    );
    const forms = new HeadFormsProgram({keyLengths: lengths, alibiSlopes, sinks}, geometry);
    return {
      ...{op: 'test', backend: gpu, geometry, scale, causal, softCap, precision: 'float32'},
      ...{alibiSlopes, sinks, headForms: (alibiSlopes ?? sinks) && own(forms.run(gpu))},
      query: upload(query, queryShape),
      key: upload(key, keyShape),
      value: upload(value, valueShape),
      keyLengths: lengths,
    };
  };
  const freeing = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } finally {
      owned.forEach(({dataId}) => gpu.disposeData(dataId));
      owned = [];
    }
  };
  return {
    permute: (inputs, {estimate, ...options}) =>
      freeing(async () => {
        const {keyScores, keyIndices} = permute(callOf(inputs, options), {permute: true, estimate});
        return {keyScores: await read(keyScores!), keyIndices: (await read(keyIndices)) as Int32Array};
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const scores = upload(keyScores, stageShapes(geometry).keyScores);
        return (await read(new SortKeysProgram(scores, geometry).run(gpu))) as Int32Array;
      }),
    scoreBlocks: (inputs, keyIndices, options) =>
      freeing(async () => {
        const order = upload(keyIndices, stageShapes(options.geometry).keyIndices);
        return read(scoreBlocks(callOf(inputs, options), order));
      }),
    sampledScores: (inputs, keyIndices, options) =>
      freeing(async () => {
        const {geometry} = options;
        const order = upload(keyIndices, stageShapes(geometry).keyIndices);
        // In float32; test/kernels/webgpu/select/sampled_mass_matrix.test.ts compares what runs on matrix units.
        const mass = own(sampledMass(callOf(inputs, options), order, null));
        const weighted = (weight: number) => read(new SampledScoresProgram(mass, geometry, weight).run(gpu));
        return {scores: await weighted(peakWeight), means: await weighted(0)};
      }),
    selectBlocks: (scores, keyIndices, {geometry, causal, ...rule}) =>
      freeing(async () => {
        const shapes = stageShapes(geometry);
        const order = upload(keyIndices, shapes.keyIndices);
        // Selection has no need of the tensors of a call.
        const call = {backend: gpu, geometry, causal} as WebGPUCall;
        const lists = selectBlocks(call, rule, upload(scores, shapes.scores), order);
        const mask = own(blockMask(call, lists));
        return {
          blockMask: await read(mask),
          blockLists: await read(lists),
          listsOfMask: await read(blockLists(call, mask)),
        };
      }),
    attend: (inputs, plan, options) =>
      freeing(async () => {
        const shapes = stageShapes(options.geometry);
        const gpuPlan = plan && {
          keyIndices: upload(plan.keyIndices, shapes.keyIndices),
          blockLists: upload(plan.blockLists, shapes.blockLists),
        };
        return read(attend(callOf(inputs, options), gpuPlan));
      }),
  };
}
