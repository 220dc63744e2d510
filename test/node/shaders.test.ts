import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {DecodeAttentionProgram} from '../../demo/llama/kernels/webgpu/decode_attention';
import {RMSNormProgram} from '../../demo/llama/kernels/webgpu/rms_norm';
import {RotaryEmbeddingProgram} from '../../demo/llama/kernels/webgpu/rotary_embedding';
import {SwiGLUProgram} from '../../demo/llama/kernels/webgpu/swiglu';
import {WriteRowProgram} from '../../demo/llama/kernels/webgpu/write_row';
import {blockGeometry} from '../../src/kernels/block_geometry';
import {AttendProgram} from '../../src/kernels/webgpu/attend';
import {AttendMatrixProgram} from '../../src/kernels/webgpu/attend_matrix';
import {BlockMaskProgram} from '../../src/kernels/webgpu/block_mask';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyStatisticsProgram,
  SortKeysProgram,
} from '../../src/kernels/webgpu/permute';
import {extendedCode} from '../../src/kernels/webgpu/extended_program';
import {KeptMassProgram} from '../../src/kernels/webgpu/kept_mass';
import type {AttentionProgram, ProgramSpec} from '../../src/kernels/webgpu/program';
import {BlockScoresProgram, PoolBlocksProgram, ProxyMassProgram} from '../../src/kernels/webgpu/score_blocks';
import {SelectBlocksProgram} from '../../src/kernels/webgpu/select_blocks';
import type {Tile} from '../../src/kernels/webgpu/tile';
import {expectShader} from './shader_snapshot';

/**
 * The shaders' texts as they go to the compiler, so that a change to them shows in review.
 * `UPDATE_SHADERS=1 npm test -- node` writes them anew.
 */
describe('shader texts', () => {
  const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const query = info(1, 4, 1000, 64);
  const key = info(1, 2, 1000, 64);
  const geometry = blockGeometry(query, key, {blockSize: 128, segmentSize: 256});
  const scores = info(1, 4, 8, 8);
  const order: TensorInfo = {...info(1, 4, 1000), dtype: 'int32'};
  const lists: TensorInfo = {...info(1, 4, 8, 9), dtype: 'int32'};
  const mass = info(1, 4, 8);
  const tile: Tile = {threadsX: 16, threadsY: 8, rows: 4, columns: 2};
  const odd = info(1, 4, 1000, 10);
  const oddGeometry = blockGeometry(odd, odd, {blockSize: 128, segmentSize: 256});
  const attendTile: Tile = {threadsX: 8, threadsY: 16, rows: 2, columns: 4};
  const halfTile: Tile = {threadsX: 8, threadsY: 16, rows: 4, columns: 4};
  const plan = {keyIndices: order, blockLists: lists};
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
    proxy_statistics: new ProxyStatisticsProgram(query, key, geometry, tile, 0.125),
    proxy_log_sums: new ProxyLogSumsProgram(info(4, 2, 128, 2)),
    key_scores: new KeyScoresProgram(query, key, info(4, 128), geometry, tile, 0.125),
    sort_keys: new SortKeysProgram(info(1, 4, 768), geometry, true),
    pool_blocks: new PoolBlocksProgram(query, key, order, geometry),
    proxy_mass: new ProxyMassProgram(info(1, 4, 768), order, geometry),
    block_scores: new BlockScoresProgram(query, geometry, 0.125, true, mass),
    block_scores_pooled: new BlockScoresProgram(query, geometry, 0.125, false),
    select_blocks: new SelectBlocksProgram(scores, order, geometry, 0.9, true),
    select_blocks_not_causal: new SelectBlocksProgram(scores, order, geometry, 0.9, false),
    kept_mass: new KeptMassProgram(scores, lists),
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
