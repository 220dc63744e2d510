import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {BlockGeometry} from '../../../src/attention/block_geometry';
import type {HiddenKeys} from '../../../src/kernels/cpu/attend/visible_scores';
import {attend} from '../../../src/kernels/webgl/attend/attend';
import {valueColumns} from '../../../src/kernels/webgl/attend/attend_passes';
import {loadMask} from '../../../src/kernels/webgl/glsl/attention_mask';
import {blockMask} from '../../../src/kernels/webgl/select/block_mask';
import type {AttentionContext} from '../../../src/kernels/webgl/runtime/context';
import {attentionContext} from '../../../src/kernels/webgl/runtime/context';
import {keyScoreSplit, permute} from '../../../src/kernels/webgl/permute/permute';
import {
  indexColumns,
  keyIndexSplit,
  RankKeysProgram,
  SortKeysProgram,
} from '../../../src/kernels/webgl/permute/sort_keys';
import type {RowTexture} from '../../../src/kernels/webgl/runtime/row_texture';
import {sampledMass, SampledScoresProgram} from '../../../src/kernels/webgl/select/sampled_mass';
import {scoreBlocks} from '../../../src/kernels/webgl/select/score_blocks';
import {selectBlocks} from '../../../src/kernels/webgl/select/select_blocks';
import type {RowSplit} from '../../../src/kernels/webgl/runtime/tensor_rows';
import {loadRows, storeRows} from '../../../src/kernels/webgl/runtime/tensor_rows';
import type {Inputs} from '../../reference/attention';
import type {StageRunner} from '../stage_runner';
import {stageShapes} from '../stage_runner';

/** @param limits to run in smaller pieces than the sizes of the tests need. */
export function webglStages(
  backend: MathBackendWebGL,
  limits: Partial<Pick<AttentionContext, 'scratchTexels' | 'fetchesPerDraw'>> = {},
): StageRunner {
  const context = {...attentionContext('test', backend), ...limits};
  const {drawBuffers, pool} = context;
  let textures: RowTexture[] = [];
  const own = <T extends RowTexture>(rows: T) => (textures.push(rows), rows);
  const upload = (
    values: Float32Array | Int32Array,
    shape: number[],
    split: RowSplit,
    columns?: number,
    filler?: number,
  ) => {
    const tensor = backend.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values);
    const rows = own(loadRows(context, tensor, split, columns, filler));
    backend.disposeIntermediateTensorInfo(tensor);
    return rows;
  };
  const readTensor = async (tensor: TensorInfo) => {
    const values = (await backend.read(tensor.dataId)) as Float32Array | Int32Array;
    backend.disposeIntermediateTensorInfo(tensor);
    return values;
  };
  const read = (rows: RowTexture, split: RowSplit, shape: number[], dtype: 'float32' | 'int32' = 'float32') =>
    readTensor(storeRows(context, own(rows), split, shape, dtype));
  const uploadHeads = (values: Float32Array, shape: number[], columns = shape[3]) =>
    upload(values, shape, {inner: shape[3], piece: shape[3]}, columns);
  const uploadIndices = (keyIndices: Int32Array, geometry: BlockGeometry) =>
    upload(
      keyIndices,
      stageShapes(geometry).keyIndices,
      keyIndexSplit(geometry, drawBuffers),
      indexColumns(geometry.keyBlockSize, drawBuffers),
      -1,
    );
  const readIndices = async (rows: RowTexture, geometry: BlockGeometry) =>
    (await read(rows, keyIndexSplit(geometry, drawBuffers), stageShapes(geometry).keyIndices, 'int32')) as Int32Array;
  const uploadKeyScores = (scores: ArrayLike<number>, geometry: BlockGeometry) =>
    upload(Float32Array.from(scores), stageShapes(geometry).keyScores, keyScoreSplit(geometry));
  const rowSplit = (length: number): RowSplit => ({inner: length, piece: length});
  const uploadKeyLengths = (keyLengths: Int32Array | undefined) =>
    keyLengths && upload(keyLengths, [keyLengths.length], rowSplit(1));
  const uploadMask = (mask: HiddenKeys['mask'], geometry: BlockGeometry) => {
    if (!mask) {
      return undefined;
    }
    const tensor = backend.makeTensorInfo(mask.shape, mask.dtype as DataType, mask.values);
    const loaded = loadMask(context, tensor, geometry);
    backend.disposeIntermediateTensorInfo(tensor);
    own(loaded.rows);
    return loaded;
  };
  const freeing = async <T>(body: () => Promise<T>): Promise<T> => {
    try {
      return await body();
    } finally {
      textures.forEach((rows) => pool.release(rows));
      textures = [];
    }
  };
  return {
    permute: ({query, key, queryShape, keyShape}: Inputs, {geometry, scale, causal, keyLengths, estimate}) =>
      freeing(async () => {
        const order = permute(
          context,
          uploadHeads(query, queryShape),
          uploadHeads(key, keyShape),
          geometry,
          scale,
          causal,
          {permute: true, estimate},
          uploadKeyLengths(keyLengths),
        );
        return {
          keyScores: await read(order.keyScores!, keyScoreSplit(geometry), stageShapes(geometry).keyScores),
          keyIndices: await readIndices(order.keyIndices, geometry),
        };
      }),
    sortKeys: (keyScores, geometry) =>
      freeing(async () => {
        const ranks = own(new RankKeysProgram(uploadKeyScores(keyScores, geometry)).run(context));
        return readIndices(new SortKeysProgram(geometry, drawBuffers, ranks).run(context), geometry);
      }),
    scoreBlocks: ({query, key, queryShape, keyShape}, keyIndices, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const scores = scoreBlocks(
          context,
          uploadHeads(query, queryShape),
          uploadHeads(key, keyShape),
          uploadIndices(keyIndices, geometry),
          geometry,
          scale,
          causal,
          uploadKeyLengths(keyLengths),
        );
        return read(scores, rowSplit(geometry.keyBlocks), stageShapes(geometry).scores);
      }),
    sampledScores: ({query, key, queryShape, keyShape}, keyIndices, {geometry, scale, causal, keyLengths}) =>
      freeing(async () => {
        const mass = sampledMass(
          context,
          uploadHeads(query, queryShape),
          uploadHeads(key, keyShape),
          uploadIndices(keyIndices, geometry),
          geometry,
          scale,
          causal,
          uploadKeyLengths(keyLengths),
        );
        const scores = new SampledScoresProgram(mass).run(context);
        const [split, shape] = [rowSplit(geometry.keyBlocks), stageShapes(geometry).scores];
        return {means: await read(mass, split, shape), scores: await read(scores, split, shape)};
      }),
    selectBlocks: (scores, keyIndices, {geometry, causal, threshold, estimate}) =>
      freeing(async () => {
        const {keyBlocks} = geometry;
        const shapes = stageShapes(geometry);
        const lists = selectBlocks(
          context,
          upload(scores, shapes.scores, rowSplit(keyBlocks)),
          uploadIndices(keyIndices, geometry),
          geometry,
          causal,
          {threshold, estimate},
        );
        return {
          blockMask: await read(blockMask(context, lists), rowSplit(keyBlocks), shapes.scores, 'int32'),
          blockLists: await read(lists, rowSplit(keyBlocks + 1), shapes.blockLists, 'int32'),
        };
      }),
    attend: (
      {query, key, value, queryShape, keyShape, valueShape},
      plan,
      {geometry, scale, causal, keyLengths, mask},
    ) =>
      freeing(async () => {
        const {keyBlocks, valueDim} = geometry;
        const gpuPlan = plan && {
          keyIndices: uploadIndices(plan.keyIndices, geometry),
          blockLists: upload(plan.blockLists, stageShapes(geometry).blockLists, rowSplit(keyBlocks + 1)),
        };
        const lengths = uploadKeyLengths(keyLengths);
        const keys = uploadHeads(key, keyShape);
        const values = uploadHeads(value, valueShape, valueColumns(valueDim, drawBuffers));
        const output = attend(context, uploadHeads(query, queryShape), keys, values, geometry, scale, causal, gpuPlan, {
          keyLengths: lengths,
          mask: uploadMask(mask, geometry),
        });
        return readTensor(output);
      }),
  };
}
