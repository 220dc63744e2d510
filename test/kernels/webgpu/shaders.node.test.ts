import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {DecodeAttentionProgram} from '../../../demo/llama/kernels/webgpu/decode_attention';
import {RMSNormProgram} from '../../../demo/llama/kernels/webgpu/rms_norm';
import {RotaryEmbeddingProgram} from '../../../demo/llama/kernels/webgpu/rotary_embedding';
import {SwiGLUProgram} from '../../../demo/llama/kernels/webgpu/swiglu';
import {WriteRowProgram} from '../../../demo/llama/kernels/webgpu/write_row';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {AttendProgram} from '../../../src/kernels/webgpu/attend/attend';
import {AttendMatrixProgram} from '../../../src/kernels/webgpu/attend/attend_matrix';
import {CombineStatesProgram} from '../../../src/kernels/webgpu/attend/attend_split';
import {BlockListsProgram} from '../../../src/kernels/webgpu/select/block_lists';
import {BlockMaskProgram} from '../../../src/kernels/webgpu/select/block_mask';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyStatisticsProgram,
} from '../../../src/kernels/webgpu/permute/permute';
import {KeysInPlaceProgram, SortKeysProgram} from '../../../src/kernels/webgpu/permute/sort_keys';
import {SortedKeysProgram} from '../../../src/kernels/webgpu/permute/sorted_keys';
import {GradientKeyProgram} from '../../../src/kernels/webgpu/gradients/gradient_key';
import {GradientQueryProgram} from '../../../src/kernels/webgpu/gradients/gradient_query';
import {GradientStatisticsProgram} from '../../../src/kernels/webgpu/gradients/gradient_statistics';
import type {GradientTile} from '../../../src/kernels/webgpu/gradients/gradient_tile';
import {extendedCode} from '../../../src/kernels/webgpu/runtime/extended_program';
import {FloatsProgram} from '../../../src/kernels/webgpu/runtime/float_inputs';
import {KeptMassProgram} from '../../../src/kernels/webgpu/select/kept_mass';
import type {AttentionProgram, ProgramSpec} from '../../../src/kernels/webgpu/runtime/program';
import {QueryListsProgram} from '../../../src/kernels/webgpu/gradients/query_lists';
import {BlockScoresProgram, PoolBlocksProgram} from '../../../src/kernels/webgpu/select/score_blocks';
import {SampledMassProgram} from '../../../src/kernels/webgpu/select/sampled_mass';
import {SampledMassMatrixProgram} from '../../../src/kernels/webgpu/select/sampled_mass_matrix';
import {SampledScoresProgram} from '../../../src/kernels/webgpu/select/sampled_scores';
import {SegmentKeyScoresProgram} from '../../../src/kernels/webgpu/permute/segment_key_scores';
import {SelectBlocksProgram} from '../../../src/kernels/webgpu/select/select_blocks';
import {SumHeadsProgram} from '../../../src/kernels/webgpu/gradients/sum_heads';
import type {Tile} from '../../../src/kernels/webgpu/wgsl/tile';
import {expectShader} from '../shader_snapshot';

/**
 * The shaders' texts as they go to the compiler, so that a change to them shows in review.
 * `UPDATE_SHADERS=1 npm test -- node` writes them anew.
 */
describe('shader texts', () => {
  const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const query = info(1, 4, 1000, 64);
  const key = info(1, 2, 1000, 64);
  const geometry = blockGeometry(query, key, {blockSize: 128, keyBlockSize: 64, segmentSize: 256});
  const scores = info(1, 4, 8, 16);
  const order: TensorInfo = {...info(1, 4, 1000), dtype: 'int32'};
  const lists: TensorInfo = {...info(1, 4, 8, 17), dtype: 'int32'};
  const tile: Tile = {threadsX: 16, threadsY: 8, rows: 4, columns: 2};
  const odd = info(1, 4, 1000, 10);
  const oddGeometry = blockGeometry(odd, odd, {blockSize: 128, keyBlockSize: 64, segmentSize: 256});
  const attendTile: Tile = {threadsX: 8, threadsY: 16, rows: 2, columns: 4};
  const halfTile: Tile = {threadsX: 8, threadsY: 16, rows: 4, columns: 4};
  const gradientTile: GradientTile = {...attendTile, chunk: 16};
  const chunkedTile: GradientTile = {...attendTile, threadsY: 8, columns: 2, chunk: 8};
  const plan = {keyIndices: order, blockLists: lists};
  const queryPlan = {keyIndices: order, queryLists: {...info(1, 4, 16, 9), dtype: 'int32' as const}};
  const statistics = info(1, 4, 1000, 4);
  const toRead = [query, key, query, query] as const;
  const oddToRead = [odd, odd, odd, odd] as const;
  const toSum = [query, key, key, query, statistics] as const;
  const oddToSum = [odd, odd, odd, odd, statistics] as const;
  const rule = (estimate: 'sampled' | 'pooled') => ({threshold: 0.9, estimate});
  const proxy = {geometry, tile, scale: 0.125, causal: true};
  // Every form that an option brings: a chunk of queries, values of another dim, key lengths, a mask.
  const chunk = info(2, 4, 100, 64);
  const keys = info(2, 2, 1000, 64);
  const wide = info(2, 2, 1000, 80);
  const chunkGeometry = blockGeometry(chunk, keys, {blockSize: 128, keyBlockSize: 64, segmentSize: 256}, wide);
  const keyLengths: TensorInfo = {...info(2), dtype: 'int32'};
  const mask = info(2, 4, 100, 1000);
  const keyMask: TensorInfo = {...info(2, 1, 1, 1000), dtype: 'bool'};
  const wideArgs = [chunk, keys, wide, chunkGeometry] as const;
  const chunkArgs = [chunk, keys, keys, {...chunkGeometry, valueDim: 64}] as const;
  const chunkPlan = {keyIndices: info(2, 4, 1000), blockLists: info(2, 4, 1, 17)};
  chunkPlan.keyIndices.dtype = chunkPlan.blockLists.dtype = 'int32';
  const paddedProxy = {...proxy, geometry: chunkGeometry, keyLengths};
  const fewKeys: Tile = {threadsX: 4, threadsY: 8, rows: 2, columns: 2};
  const fewRows: Tile = {threadsX: 16, threadsY: 4, rows: 2, columns: 2};
  const float32 = 'float32' as const;
  const rotary = (headDim: number) => ({
    x: info(6, 100, headDim),
    cos: info(512, headDim),
    signedSin: info(512, headDim),
  });
  const held = (headDim: number) => ({
    query: info(1, 4, 1, headDim),
    restKey: info(1, 2, 1000, headDim),
    restValue: info(1, 2, 1000, headDim),
    pageKey: info(1, 2, 64, headDim),
    pageValue: info(1, 2, 64, headDim),
    pageBias: info(64),
  });

  const programs: Record<string, AttentionProgram<object>> = {
    proxy_statistics: new ProxyStatisticsProgram(query, key, proxy),
    proxy_log_sums: new ProxyLogSumsProgram(info(4, 2, 128, 2)),
    key_scores: new KeyScoresProgram(query, key, info(4, 128), proxy),
    segment_key_scores: new SegmentKeyScoresProgram(query, key, geometry, tile, 0.125, true),
    segment_key_scores_not_causal: new SegmentKeyScoresProgram(query, key, geometry, attendTile, 0.125, false),
    sort_keys: new SortKeysProgram(info(1, 4, 768), geometry),
    keys_in_place: new KeysInPlaceProgram(geometry),
    sorted_keys: new SortedKeysProgram(key, order, geometry),
    pool_blocks: new PoolBlocksProgram(query, key, order, geometry),
    block_scores: new BlockScoresProgram(query, geometry, 0.125, true),
    block_scores_not_causal: new BlockScoresProgram(query, geometry, 0.125, false),
    sampled_mass: new SampledMassProgram(query, key, order, geometry, attendTile, 0.125, true),
    sampled_mass_not_causal_odd: new SampledMassProgram(odd, odd, order, oddGeometry, fewKeys, 0.125, false),
    sampled_mass_matrix: new SampledMassMatrixProgram(query, info(4, 1024, 32), order, geometry, 0.125, true),
    sampled_scores: new SampledScoresProgram(info(32, 4, 2, 16), geometry, 0.1),
    select_blocks: new SelectBlocksProgram(scores, order, geometry, true, rule('sampled')),
    select_blocks_not_causal: new SelectBlocksProgram(scores, order, geometry, false, rule('sampled')),
    select_blocks_pooled: new SelectBlocksProgram(scores, order, geometry, true, rule('pooled')),
    floats: new FloatsProgram(order),
    kept_mass: new KeptMassProgram(scores, lists, 'sampled'),
    kept_mass_pooled: new KeptMassProgram(scores, lists, 'pooled'),
    block_mask: new BlockMaskProgram(lists),
    attend_sparse: new AttendProgram(query, key, key, geometry, attendTile, 'float32', 0.125, true, plan),
    attend_exact: new AttendProgram(query, key, key, geometry, attendTile, 'float32', 0.125, true),
    attend_half_sparse: new AttendProgram(query, key, key, geometry, halfTile, 'float16', 0.125, true, plan),
    attend_half_exact_not_causal_odd_head_dim: new AttendProgram(
      odd,
      odd,
      odd,
      oddGeometry,
      halfTile,
      'float16',
      1,
      false,
    ),
    attend_matrix_sparse: new AttendMatrixProgram(query, key, key, geometry, 0.125, true, plan),
    attend_matrix_exact_not_causal_odd_head_dim: new AttendMatrixProgram(odd, odd, odd, oddGeometry, 0.125, false),
    attend_exact_not_causal_odd_head_dim: new AttendProgram(
      odd,
      odd,
      odd,
      oddGeometry,
      attendTile,
      'float32',
      0.125,
      false,
    ),
    gradient_statistics_sparse: new GradientStatisticsProgram(...toRead, geometry, gradientTile, 0.125, true, plan),
    gradient_statistics_exact_odd: new GradientStatisticsProgram(...oddToRead, oddGeometry, chunkedTile, 0.125, false),
    gradient_query_sparse: new GradientQueryProgram(...toSum, geometry, gradientTile, 0.125, true, plan),
    gradient_query_exact_odd: new GradientQueryProgram(...oddToSum, oddGeometry, chunkedTile, 0.125, false),
    gradient_key_sparse: new GradientKeyProgram(...toSum, geometry, gradientTile, 0.125, true, queryPlan),
    gradient_key_exact: new GradientKeyProgram(...toSum, geometry, gradientTile, 0.125, true),
    gradient_key_exact_odd: new GradientKeyProgram(...oddToSum, oddGeometry, chunkedTile, 0.125, false),
    query_lists: new QueryListsProgram(info(1, 4, 8, 16)),
    sum_heads: new SumHeadsProgram(info(4 * 1000 * 128), 0, 4, key.shape),
    proxy_statistics_padded: new ProxyStatisticsProgram(chunk, keys, paddedProxy),
    key_scores_padded: new KeyScoresProgram(chunk, keys, info(8, 100), paddedProxy),
    pool_blocks_padded: new PoolBlocksProgram(chunk, keys, chunkPlan.keyIndices, chunkGeometry, keyLengths),
    segment_key_scores_chunk_padded: new SegmentKeyScoresProgram(
      chunk,
      keys,
      chunkGeometry,
      tile,
      0.125,
      true,
      keyLengths,
    ),
    block_scores_chunk_padded: new BlockScoresProgram(info(136, 64), chunkGeometry, 0.125, true, keyLengths),
    sampled_mass_chunk_padded_long_blocks: new SampledMassProgram(
      chunk,
      keys,
      chunkPlan.keyIndices,
      {...chunkGeometry, keyBlockSize: 256, keyBlocks: 4},
      tile,
      0.125,
      true,
      keyLengths,
    ),
    sampled_mass_matrix_chunk_padded: new SampledMassMatrixProgram(
      chunk,
      info(8, 1024, 32),
      chunkPlan.keyIndices,
      chunkGeometry,
      0.125,
      true,
      keyLengths,
    ),
    select_blocks_chunk: new SelectBlocksProgram(
      info(2, 4, 1, 16),
      chunkPlan.keyIndices,
      chunkGeometry,
      true,
      rule('sampled'),
    ),
    block_lists: new BlockListsProgram({...info(1, 4, 8, 16), dtype: 'bool'}),
    attend_chunk_padded_sparse: new AttendProgram(...chunkArgs, attendTile, float32, 0.125, true, chunkPlan, {
      keyLengths,
    }),
    attend_chunk_masked_value_dim: new AttendProgram(...wideArgs, attendTile, float32, 0.125, true, undefined, {mask}),
    attend_half_value_dim: new AttendProgram(...wideArgs, halfTile, 'float16', 0.125, false),
    attend_matrix_every_form: new AttendMatrixProgram(...wideArgs, 0.125, true, undefined, {keyLengths, mask: keyMask}),
    attend_split_exact: new AttendProgram(...wideArgs, fewRows, float32, 1, true, undefined, {mask: keyMask}, 8),
    attend_split_sparse: new AttendProgram(...chunkArgs, fewRows, float32, 1, true, chunkPlan, {}, 8),
    combine_states: new CombineStatesProgram(info(800, 8, 84), chunkGeometry),
    model_rms_norm: new RMSNormProgram(info(100, 256), 1e-5),
    model_rms_norm_odd: new RMSNormProgram(info(100, 33), 1e-5),
    model_swiglu: new SwiGLUProgram(info(2, 100, 704)),
    model_swiglu_odd: new SwiGLUProgram(info(2, 3, 33)),
    model_rotary_embedding: new RotaryEmbeddingProgram(rotary(64), 3, 4, 2),
    model_rotary_embedding_odd: new RotaryEmbeddingProgram(rotary(12), 0, 0, 4),
    model_write_row: new WriteRowProgram({page: info(1, 2, 64, 64), row: info(1, 2, 1, 64), at: info(1, 1, 64, 1)}),
    model_decode_attention: new DecodeAttentionProgram(held(64)),
    model_decode_attention_odd: new DecodeAttentionProgram(held(10)),
  };
  for (const [name, program] of Object.entries(programs)) {
    it(name, () => expectShader(`${name}.wgsl`, program.getUserCode()));
  }

  it('is valid WGSL, also where no device at hand has the extensions', async () => {
    const dawn = await import('webgpu');
    // Dawn's null backend compiles nothing and runs nothing, but checks shaders, and has every feature.
    const gpu = dawn.create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
    const adapter = (await gpu.requestAdapter())!;
    const features = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[];
    const device = await adapter.requestDevice({requiredFeatures: features});
    const checked: string[] = [];
    for (const [name, program] of Object.entries(programs)) {
      const {spec} = program as unknown as {spec: ProgramSpec<object>};
      device.pushErrorScope('validation');
      device.createShaderModule({code: extendedCode(program, spec, spec.extensions ?? [])});
      const error = await device.popErrorScope();
      expect(error?.message ?? '', name).to.equal('');
      checked.push(...(spec.extensions ?? []));
    }
    expect(checked).to.include.members(['f16', 'subgroups', 'chromium_experimental_subgroup_matrix']);
    device.pushErrorScope('validation');
    device.createShaderModule({code: 'enable f16; fn half() -> f16 { return 1.0f; }'});
    expect(await device.popErrorScope(), 'it refuses what is wrong').not.to.equal(null);
    device.destroy();
  });

  it('gives different shaders different keys', () => {
    const keys = Object.values(programs).map(({shaderKey}) => shaderKey);
    expect(new Set(keys).size).to.equal(keys.length);
  });
});
