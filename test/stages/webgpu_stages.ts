import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {attend} from '../../src/kernels/webgpu/attend';
import {attendRemainder} from '../../src/kernels/webgpu/attend_remainder';
import {blockLists} from '../../src/kernels/webgpu/block_lists';
import {blockMask} from '../../src/kernels/webgpu/block_mask';
import {permute} from '../../src/kernels/webgpu/permute';
import {SortKeysProgram} from '../../src/kernels/webgpu/sort_keys';
import {chooseProbeRows} from '../../src/kernels/webgpu/probe_rows';
import {probedScores} from '../../src/kernels/webgpu/probed_scores';
import {scoreBlocks} from '../../src/kernels/webgpu/score_blocks';
import {selectBlocks} from '../../src/kernels/webgpu/select_blocks';
import {SummarizeBlocksProgram} from '../../src/kernels/webgpu/summarize_blocks';
import type {Inputs} from '../reference';
import type {StageRunner} from './stage_runner';
import {stageShapes} from './stage_runner';

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
    permute: (inputs, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const lengths = uploadLengths(keyLengths);
        const {keyScores, keyIndices} = permute('test', gpu, query, key, geometry, scale, true, causal, lengths);
        return {keyScores: await read(keyScores), keyIndices: (await read(keyIndices)) as Int32Array};
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const scores = upload(keyScores, stageShapes(geometry).keyScores);
        return (await read(new SortKeysProgram(scores, geometry, true).run(gpu))) as Int32Array;
      }),
    scoreBlocks: (inputs, order, {geometry, scale, causal, exactLastBlock, keyLengths}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuOrder = {
          keyScores: uploadScores(order.keyScores, shapes.keyScores),
          keyIndices: upload(order.keyIndices, shapes.keyIndices),
        };
        const lengths = uploadLengths(keyLengths);
        return read(scoreBlocks(gpu, query, key, gpuOrder, geometry, scale, causal, exactLastBlock, lengths));
      }),
    chooseProbeRows: (inputs, geometry, probeRows) =>
      freeing(async () => read(chooseProbeRows(gpu, uploadInputs(inputs).query, geometry, probeRows))),
    probedScores: (inputs, order, {geometry, scale, causal, exactLastBlock, probeRows, keyLengths}) =>
      freeing(async () => {
        const {query, key} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuOrder = {
          keyScores: uploadScores(order.keyScores, shapes.keyScores),
          keyIndices: upload(order.keyIndices, shapes.keyIndices),
        };
        const lengths = uploadLengths(keyLengths);
        const summarize = new SummarizeBlocksProgram(key, gpuOrder.keyIndices, geometry, true, lengths);
        const scores = probedScores(
          'test',
          gpu,
          query,
          key,
          {...gpuOrder, summaries: own(summarize.run(gpu))},
          geometry,
          scale,
          causal,
          exactLastBlock,
          probeRows,
          lengths,
        );
        return read(scores);
      }),
    selectBlocks: (scores, keyIndices, {geometry, threshold, causal, ownCounts}) =>
      freeing(async () => {
        const shapes = stageShapes(geometry);
        const indices = upload(keyIndices, shapes.keyIndices);
        const lists = selectBlocks(gpu, upload(scores, shapes.scores), indices, geometry, threshold, causal, ownCounts);
        const mask = own(blockMask(gpu, lists));
        return {
          blockMask: await read(mask),
          blockLists: await read(lists),
          listsOfMask: await read(blockLists(gpu, mask)),
        };
      }),
    attend: (inputs, plan, {geometry, scale, causal, keyLengths, remainder}) =>
      freeing(async () => {
        const {query, key, value} = uploadInputs(inputs);
        const shapes = stageShapes(geometry);
        const gpuPlan = plan && {
          keyIndices: upload(plan.keyIndices, shapes.keyIndices),
          blockLists: upload(plan.blockLists, shapes.blockLists),
        };
        const attrs = {scale, causal, precision: 'float32' as const};
        const lengths = uploadLengths(keyLengths);
        const seen = remainder
          ? own(attendRemainder(gpu, query, key, value, geometry, scale, causal, gpuPlan!, lengths))
          : undefined;
        return read(attend('test', gpu, query, key, value, geometry, attrs, gpuPlan, {keyLengths: lengths, seen}));
      }),
  };
}
