import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {BlockGeometry} from '../../../src/attention/block_geometry';
import {attend} from '../../../src/kernels/webgl/attend/attend';
import {keyIndexSplit} from '../../../src/kernels/webgl/glsl/tiles';
import {keyScoreSplit, permute} from '../../../src/kernels/webgl/permute/permute';
import {RankKeysProgram, SortKeysProgram} from '../../../src/kernels/webgl/permute/sort_keys';
import type {AttentionContext} from '../../../src/kernels/webgl/runtime/context';
import {attentionContext} from '../../../src/kernels/webgl/runtime/context';
import type {RowTexture} from '../../../src/kernels/webgl/runtime/row_texture';
import type {RowSplit} from '../../../src/kernels/webgl/runtime/tensor_rows';
import {loadRows, storeRows, wholeRows} from '../../../src/kernels/webgl/runtime/tensor_rows';
import {blockMask} from '../../../src/kernels/webgl/select/block_mask';
import {sampledMass} from '../../../src/kernels/webgl/select/sampled_mass';
import {SampledScoresProgram} from '../../../src/kernels/webgl/select/sampled_scores';
import {scoreBlocks} from '../../../src/kernels/webgl/select/score_blocks';
import {selectBlocks} from '../../../src/kernels/webgl/select/select_blocks';
import type {WebGLCall} from '../../../src/kernels/webgl/webgl_call';
import {openCall} from '../../../src/kernels/webgl/webgl_call';
import type {Inputs} from '../../reference/attention';
import type {StageOptions, StageRunner} from '../stage_runner';
import {stageShapes} from '../stage_runner';

/** @param limits to run in smaller pieces than the sizes of the tests need. */
export function webglStages(
  backend: MathBackendWebGL,
  limits: Partial<Pick<AttentionContext, 'scratchTexels' | 'fetchesPerDraw'>> = {},
): StageRunner {
  const context = {...attentionContext('test', backend), ...limits};
  const {drawBuffers, pool} = context;
  let textures: RowTexture[] = [];
  let tensors: TensorInfo[] = [];
  const own = <T extends RowTexture>(rows: T) => (textures.push(rows), rows);
  const makeTensor = (values: ArrayLike<number>, shape: number[], dtype: DataType) => {
    const tensor = backend.makeTensorInfo(shape, dtype, values as Float32Array);
    tensors.push(tensor);
    return tensor;
  };
  const callOf = (
    {query, key, value, queryShape, keyShape, valueShape}: Inputs,
    {geometry, scale, causal, softCap, keyLengths, alibiSlopes, sinks, mask}: StageOptions,
  ): WebGLCall => {
    const inputs = {
      query: makeTensor(query, queryShape, 'float32'),
      key: makeTensor(key, keyShape, 'float32'),
      value: makeTensor(value, valueShape, 'float32'),
      ...(keyLengths && {keyLengths: makeTensor(keyLengths, [keyLengths.length], 'int32')}),
      ...(alibiSlopes && {alibiSlopes: makeTensor(alibiSlopes, [alibiSlopes.length], 'float32')}),
      ...(sinks && {sinks: makeTensor(sinks, [sinks.length], 'float32')}),
      ...(mask && {mask: makeTensor(mask.values, mask.shape, mask.dtype as DataType)}),
    };
    const form = {
      op: 'test',
      geometry,
      scale,
      causal,
      softCap,
      precision: 'float32',
      result: 'output',
      expectedTime: 0,
    } as const;
    return openCall(context, {...form, inputs}, own);
  };
  const upload = (values: Float32Array | Int32Array, shape: number[], split: RowSplit) =>
    own(loadRows(context, makeTensor(values, shape, values instanceof Int32Array ? 'int32' : 'float32'), split));
  const uploadIndices = (keyIndices: Int32Array, geometry: BlockGeometry) =>
    upload(keyIndices, stageShapes(geometry).keyIndices, keyIndexSplit(geometry, drawBuffers));
  const readTensor = async (tensor: TensorInfo) => {
    const values = (await backend.read(tensor.dataId)) as Float32Array | Int32Array;
    backend.disposeIntermediateTensorInfo(tensor);
    return values;
  };
  const read = (rows: RowTexture, split: RowSplit, shape: number[], dtype: 'float32' | 'int32' = 'float32') =>
    readTensor(storeRows(context, own(rows), split, {shape, dtype}));
  const readIndices = async (rows: RowTexture, geometry: BlockGeometry) =>
    (await read(rows, keyIndexSplit(geometry, drawBuffers), stageShapes(geometry).keyIndices, 'int32')) as Int32Array;
  const freeing = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } finally {
      textures.forEach((rows) => pool.release(rows));
      tensors.forEach((tensor) => backend.disposeIntermediateTensorInfo(tensor));
      [textures, tensors] = [[], []];
    }
  };
  return {
    permute: (inputs, {estimate, ...options}) =>
      freeing(async () => {
        const {geometry} = options;
        const {keyScores, keyIndices} = permute(callOf(inputs, options), {permute: true, estimate});
        return {
          keyScores: await read(keyScores!, keyScoreSplit(geometry), stageShapes(geometry).keyScores),
          keyIndices: await readIndices(keyIndices, geometry),
        };
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const scores = upload(keyScores, stageShapes(geometry).keyScores, keyScoreSplit(geometry));
        const ranks = own(new RankKeysProgram(scores).run(context));
        // Sorting has no need of the tensors of a call.
        return readIndices(new SortKeysProgram({context, geometry} as WebGLCall, ranks).run(context), geometry);
      }),
    scoreBlocks: (inputs, keyIndices, options) =>
      freeing(async () => {
        const {geometry} = options;
        const scores = scoreBlocks(callOf(inputs, options), uploadIndices(keyIndices, geometry));
        return read(scores, wholeRows(geometry.keyBlocks), stageShapes(geometry).scores);
      }),
    sampledScores: (inputs, keyIndices, options) =>
      freeing(async () => {
        const {geometry} = options;
        const mass = sampledMass(callOf(inputs, options), uploadIndices(keyIndices, geometry));
        const scores = new SampledScoresProgram(mass).run(context);
        const [split, shape] = [wholeRows(geometry.keyBlocks), stageShapes(geometry).scores];
        return {means: await read(mass, split, shape), scores: await read(scores, split, shape)};
      }),
    selectBlocks: (scores, keyIndices, {geometry, causal, ...rule}) =>
      freeing(async () => {
        const {keyBlocks} = geometry;
        const shapes = stageShapes(geometry);
        // Nor has selection.
        const call = {context, geometry, causal} as WebGLCall;
        const rows = upload(scores, shapes.scores, wholeRows(keyBlocks));
        const lists = selectBlocks(call, rule, rows, uploadIndices(keyIndices, geometry));
        return {
          blockMask: await read(blockMask(call, lists), wholeRows(keyBlocks), shapes.scores, 'int32'),
          blockLists: await read(lists, wholeRows(keyBlocks + 1), shapes.blockLists, 'int32'),
        };
      }),
    attend: (inputs, plan, options) =>
      freeing(async () => {
        const {geometry} = options;
        const listSplit = wholeRows(geometry.keyBlocks + 1);
        const gpuPlan = plan && {
          keyIndices: uploadIndices(plan.keyIndices, geometry),
          blockLists: upload(plan.blockLists, stageShapes(geometry).blockLists, listSplit),
        };
        return readTensor(attend(callOf(inputs, options), gpuPlan));
      }),
  };
}
