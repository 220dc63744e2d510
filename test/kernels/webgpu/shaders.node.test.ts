import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {AttendRowsProgram} from '../../../runner/llama/decode/attend_rows';
import {ChooseTokenProgram} from '../../../runner/llama/kernels/webgpu/choose_token';
import {LastRowProgram} from '../../../runner/llama/decode/last_row';
import {ReadRowsProgram, StoreRowsProgram} from '../../../runner/llama/decode/store_rows';
import {StoreTokensProgram} from '../../../runner/llama/decode/store_tokens';
import {GatedActivationProgram} from '../../../runner/llama/kernels/webgpu/gated_activation';
import {RMSNormProgram} from '../../../runner/llama/kernels/webgpu/rms_norm';
import {RotaryEmbeddingProgram} from '../../../runner/llama/kernels/webgpu/rotary_embedding';
import type {PackedType} from '../../../runner/quantised/packed_type';
import {
  JoinHeadsFloat16Program,
  NormaliseFloat16Program,
  UnpackFloat16Program,
} from '../../../runner/quantised/webgpu/float16_programs';
import {ProductFloat32Program} from '../../../runner/quantised/webgpu/product_float32';
import {ProductMatrixProgram} from '../../../runner/quantised/webgpu/product_matrix';
import {PackedProductProgram} from '../../../runner/quantised/webgpu/product_program';
import {PRODUCT_TILES} from '../../../runner/quantised/webgpu/product_tiles';
import {UnpackProgram, UnpackRowsProgram} from '../../../runner/quantised/webgpu/unpack_program';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {AttendProgram} from '../../../src/kernels/webgpu/attend/attend';
import {AttendDecodeProgram} from '../../../src/kernels/webgpu/attend/attend_decode';
import {AttendMatrixProgram} from '../../../src/kernels/webgpu/attend/attend_matrix';
import type {MatrixTile} from '../../../src/kernels/webgpu/attend/attend_matrix_tile';
import {float16Layout, Float16RowsProgram} from '../../../src/kernels/webgpu/attend/float16_rows';
import {LogSumExpProgram} from '../../../src/kernels/webgpu/attend/log_sum_exp';
import {CombineStatesProgram} from '../../../src/kernels/webgpu/attend/attend_split';
import {BlockListsProgram} from '../../../src/kernels/webgpu/select/block_lists';
import {BlockMaskProgram} from '../../../src/kernels/webgpu/select/block_mask';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyStatisticsProgram,
} from '../../../src/kernels/webgpu/permute/proxy_key_scores';
import {KeysInPlaceProgram, SortKeysProgram} from '../../../src/kernels/webgpu/permute/sort_keys';
import {SortedKeysProgram} from '../../../src/kernels/webgpu/select/sorted_keys';
import {GradientKeyProgram} from '../../../src/kernels/webgpu/gradients/gradient_key';
import {GradientQueryProgram} from '../../../src/kernels/webgpu/gradients/gradient_query';
import {GradientStatisticsProgram} from '../../../src/kernels/webgpu/gradients/gradient_statistics';
import type {GradientTile} from '../../../src/kernels/webgpu/gradients/gradient_tile';
import {extendedCode} from '../../../src/kernels/webgpu/runtime/extended_program';
import {HeadFormsProgram} from '../../../src/kernels/webgpu/head_forms';
import {PackFloat16Program, UnpackedFloatsProgram} from '../../../src/kernels/webgpu/pack_float16';
import {FloatsProgram} from '../../../src/kernels/webgpu/float_inputs';
import {KeptMassProgram} from '../../../src/kernels/webgpu/select/kept_mass';
import type {AttentionProgram} from '../../../src/kernels/webgpu/runtime/program';
import {JoinedPlanProgram} from '../../../src/kernels/webgpu/gradients/joined_plan';
import {QueryListsProgram} from '../../../src/kernels/webgpu/gradients/query_lists';
import {BlockScoresProgram, PoolBlocksProgram} from '../../../src/kernels/webgpu/select/score_blocks';
import {SampledMassProgram} from '../../../src/kernels/webgpu/select/sampled_mass';
import {SampledMassMatrixProgram} from '../../../src/kernels/webgpu/select/sampled_mass_matrix';
import {SampledScoresProgram} from '../../../src/kernels/webgpu/select/sampled_scores';
import {SegmentKeyScoresProgram} from '../../../src/kernels/webgpu/permute/segment_key_scores';
import {SelectBlocksProgram} from '../../../src/kernels/webgpu/select/select_blocks';
import {SumHeadsProgram} from '../../../src/kernels/webgpu/gradients/sum_heads';
import type {Tile} from '../../../src/kernels/webgpu/wgsl/tile';
import type {WebGPUCall, WebGPUGradientCall, WebGPUPlan} from '../../../src/kernels/webgpu/webgpu_call';
import {MATRIX_UNITS, UNITS} from '../../reference/emulated_matrix_units';
import {expectShader} from '../shader_snapshot';

/**
 * The shaders' texts as they go to the compiler, so that a change to them shows in review.
 * `UPDATE_SHADERS=1 npm test -- node` writes them anew.
 */
describe('shader texts', () => {
  const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const int32 = (...shape: number[]): TensorInfo => ({...info(...shape), dtype: 'int32'});
  const sizes = {blockSize: 128, keyBlockSize: 64, segmentSize: 256};
  /** A call, of which the programs have no need of a backend. */
  const call = (form: Partial<WebGPUGradientCall> & Pick<WebGPUCall, 'query' | 'key'>): WebGPUGradientCall => {
    const {query, key, value = key, ...others} = form;
    const geometry = blockGeometry(query, key, sizes, value);
    const [backend, output] = [undefined as unknown as WebGPUBackend, info(...query.shape.slice(0, 3), value.shape[3])];
    const attrs = {op: 'test', geometry, scale: 0.125, causal: true, precision: 'float32' as const};
    return {backend, ...attrs, query, key, value, output, dy: output, ...others};
  };
  const grouped = call({query: info(1, 4, 1000, 64), key: info(1, 2, 1000, 64)});
  const notCausal = {...grouped, causal: false};
  const odd = call({query: info(1, 4, 1000, 10), key: info(1, 4, 1000, 10), causal: false});
  // Every form that an option brings: a chunk of queries, values of another dim, key lengths, a mask.
  const chunk = call({query: info(2, 4, 100, 64), key: info(2, 2, 1000, 64)});
  const padded = {...chunk, keyLengths: int32(2)};
  const wide = call({query: chunk.query, key: chunk.key, value: info(2, 2, 1000, 80)});
  const masked = {...wide, mask: info(2, 4, 100, 1000)};
  // Forms of scores.
  const formed = (of: WebGPUGradientCall) => ({
    ...of,
    geometry: {...of.geometry, window: 300},
    ...{softCap: 50, alibiSlopes: info(4), sinks: info(4), headForms: info(of.geometry.batch * 4, 4)},
  });
  const everyForm = formed({...padded, mask: masked.mask});
  const windowed = {...grouped, geometry: {...grouped.geometry, window: 300}};
  const keyMasked = {...wide, mask: {...info(2, 1, 1, 1000), dtype: 'bool' as const}};

  const scores = info(1, 4, 8, 16);
  const order = int32(1, 4, 1000);
  const lists = int32(1, 4, 8, 17);
  const plan = {keyIndices: order, blockLists: lists};
  const joined = {joinedPlan: int32(4 * (1000 + 8 * 17))};
  const chunkPlan = {keyIndices: int32(2, 4, 1000), blockLists: int32(2, 4, 1, 17)};
  const statistics = info(1, 4, 1000, 4);
  const rule = (estimate: 'sampled' | 'pooled') => ({threshold: 0.9, estimate});

  const tile: Tile = {threadsX: 16, threadsY: 8, rows: 4, columns: 2};
  const attendTile: Tile = {threadsX: 8, threadsY: 16, rows: 2, columns: 4};
  const float32 = {tile: attendTile};
  const rowsOf = (of: WebGPUCall, hasQueries: boolean) => int32(4 * float16Layout(of, hasQueries).end);
  const float16 = (of: WebGPUCall, plan?: WebGPUPlan) =>
    new AttendProgram(of, {tile: {...attendTile, rows: 4 as const}, rows: rowsOf(of, false), plan});
  const gradientTile: GradientTile = {...attendTile, chunk: 16};
  const chunkedTile: GradientTile = {...attendTile, threadsY: 8, columns: 2, chunk: 8};
  const fewKeys: Tile = {threadsX: 4, threadsY: 8, rows: 2, columns: 2};
  const fewRows: Tile = {threadsX: 16, threadsY: 4, rows: 2, columns: 2};
  const split = {tile: fewRows, chunks: 8};
  const rotary = (headDim: number) => ({
    x: info(6, 100, headDim),
    cos: info(512, headDim),
    signedSin: info(512, headDim),
  });
  const newTokens = (rows: number) => ({
    projected: info(rows, 512),
    span: int32(2),
    rotary: {cos: info(512, 64), signedSin: info(512, 64)},
    norm: {weight: info(6, 1, 64), epsilon: 1e-6},
    shape: {heads: 4, keyValueHeads: 2, headDim: 64},
  });
  const cache = int32(2, 2, 1024, 32);

  const packed = (type: PackedType) => {
    return {type, shape: [96, 512] as [number, number], quants: int32(96, 64), scales: int32(96, 16)};
  };
  /** The program with rows of float16 in place of queries, keys and values. */
  const long = call({query: info(1, 8, 1024, 64), key: info(1, 2, 1024, 64)});
  const onMatrixUnits = (of: WebGPUCall, plan?: WebGPUPlan, tile: Partial<MatrixTile> = {}) =>
    new AttendMatrixProgram(of, {
      ...{rows: rowsOf(of, true), plan},
      tile: {units: UNITS, lanesOfRow: 2, keys: 16, ...tile},
    });
  const programs: Record<string, AttentionProgram<object>> = {
    float16_rows: new Float16RowsProgram(wide, true),
    float16_rows_odd: new Float16RowsProgram(odd, true),
    float16_rows_without_queries: new Float16RowsProgram(wide, false),
    proxy_statistics: new ProxyStatisticsProgram(grouped, tile),
    proxy_log_sums: new ProxyLogSumsProgram(info(4, 2, 128, 2)),
    key_scores: new KeyScoresProgram(grouped, info(4, 128), tile),
    segment_key_scores: new SegmentKeyScoresProgram(grouped, tile),
    segment_key_scores_not_causal: new SegmentKeyScoresProgram(notCausal, attendTile),
    sort_keys: new SortKeysProgram(info(1, 4, 768), grouped.geometry),
    keys_in_place: new KeysInPlaceProgram(grouped.geometry),
    sorted_keys: new SortedKeysProgram(grouped, order),
    pool_blocks: new PoolBlocksProgram(grouped, order),
    block_scores: new BlockScoresProgram(grouped, info(96, 64)),
    block_scores_not_causal: new BlockScoresProgram(notCausal, info(96, 64)),
    sampled_mass: new SampledMassProgram(grouped, order, attendTile),
    sampled_mass_not_causal_odd: new SampledMassProgram(odd, order, fewKeys),
    sampled_mass_matrix: new SampledMassMatrixProgram(grouped, UNITS, int32(4, 1024, 32), order),
    sampled_scores: new SampledScoresProgram(info(32, 4, 2, 16), grouped.geometry, 0.1),
    select_blocks: new SelectBlocksProgram(grouped, rule('sampled'), scores, order),
    select_blocks_not_causal: new SelectBlocksProgram(notCausal, rule('sampled'), scores, order),
    select_blocks_pooled: new SelectBlocksProgram(grouped, rule('pooled'), scores, order),
    floats: new FloatsProgram(order),
    kept_mass: new KeptMassProgram(scores, lists, 'sampled'),
    kept_mass_pooled: new KeptMassProgram(scores, lists, 'pooled'),
    block_mask: new BlockMaskProgram(lists),
    attend_sparse: new AttendProgram(grouped, {...float32, plan}),
    attend_exact: new AttendProgram(grouped, float32),
    attend_half_sparse: float16(grouped, plan),
    attend_half_exact_not_causal_odd_head_dim: float16(odd),
    attend_matrix_exact: onMatrixUnits(grouped),
    attend_matrix_many_rows: onMatrixUnits(long, undefined, {lanesOfRow: 1}),
    attend_matrix_few_rows: onMatrixUnits(long, undefined, {lanesOfRow: 1, keys: 32}),
    attend_matrix_sparse: onMatrixUnits(grouped, plan),
    attend_matrix_exact_not_causal_odd_head_dim: onMatrixUnits(odd),
    attend_exact_not_causal_odd_head_dim: new AttendProgram(odd, float32),
    gradient_statistics_sparse: new GradientStatisticsProgram(grouped, gradientTile, joined),
    gradient_statistics_exact_odd: new GradientStatisticsProgram(odd, chunkedTile),
    gradient_query_sparse: new GradientQueryProgram(grouped, gradientTile, statistics, joined),
    gradient_query_exact_odd: new GradientQueryProgram(odd, chunkedTile, statistics),
    gradient_key_sparse: new GradientKeyProgram(grouped, gradientTile, statistics, joined),
    gradient_key_exact: new GradientKeyProgram(grouped, gradientTile, statistics),
    gradient_key_exact_odd: new GradientKeyProgram(odd, chunkedTile, statistics),
    gradient_query_chunked: new GradientQueryProgram(grouped, chunkedTile, statistics),
    gradient_key_chunked: new GradientKeyProgram(grouped, chunkedTile, statistics, joined),
    query_lists: new QueryListsProgram(info(1, 4, 8, 16)),
    joined_plan: new JoinedPlanProgram(order, lists),
    sum_heads: new SumHeadsProgram(info(4 * 1000 * 128), {first: 0, owners: 4, shape: grouped.key.shape}),
    proxy_statistics_padded: new ProxyStatisticsProgram(padded, tile),
    key_scores_padded: new KeyScoresProgram(padded, info(8, 100), tile),
    pool_blocks_padded: new PoolBlocksProgram(padded, chunkPlan.keyIndices),
    segment_key_scores_chunk_padded: new SegmentKeyScoresProgram(padded, tile),
    block_scores_chunk_padded: new BlockScoresProgram(padded, info(136, 64)),
    sampled_mass_chunk_padded_long_blocks: new SampledMassProgram(
      {...padded, geometry: {...padded.geometry, keyBlockSize: 256, keyBlocks: 4}},
      chunkPlan.keyIndices,
      tile,
    ),
    sampled_mass_matrix_chunk_padded: new SampledMassMatrixProgram(
      padded,
      UNITS,
      int32(8, 1024, 32),
      chunkPlan.keyIndices,
    ),
    select_blocks_chunk: new SelectBlocksProgram(chunk, rule('sampled'), info(2, 4, 1, 16), chunkPlan.keyIndices),
    block_lists: new BlockListsProgram({...info(1, 4, 8, 16), dtype: 'bool'}),
    attend_chunk_padded_sparse: new AttendProgram(padded, {...float32, plan: chunkPlan}),
    attend_chunk_masked_value_dim: new AttendProgram(masked, float32),
    attend_half_value_dim: float16({...wide, causal: false}),
    attend_matrix_every_form: onMatrixUnits({...keyMasked, keyLengths: padded.keyLengths}),
    attend_split_exact: new AttendProgram(keyMasked, split),
    attend_split_sparse: new AttendProgram(chunk, {...split, plan: chunkPlan}),
    combine_states: new CombineStatesProgram(info(800, 8, 84), wide.geometry),
    segment_key_scores_forms: new SegmentKeyScoresProgram(everyForm, tile),
    sampled_mass_forms: new SampledMassProgram(everyForm, chunkPlan.keyIndices, attendTile),
    sampled_mass_forms_not_causal: new SampledMassProgram(formed(notCausal), order, fewKeys),
    select_blocks_window: new SelectBlocksProgram(windowed, rule('sampled'), scores, order),
    select_blocks_window_not_causal: new SelectBlocksProgram(
      {...windowed, causal: false},
      rule('pooled'),
      scores,
      order,
    ),
    block_scores_window: new BlockScoresProgram(windowed, info(96, 64)),
    attend_window: new AttendProgram(windowed, float32),
    attend_forms_chunk_padded: new AttendProgram(formed(padded), float32),
    attend_forms_sparse_not_causal: new AttendProgram(formed(notCausal), {...float32, plan}),
    attend_decode: new AttendDecodeProgram(call({query: info(1, 8, 1, 64), key: info(1, 2, 8192, 64)}), {
      teams: {rows: 4, lanes: 16, keys: 16},
      chunks: 8,
    }),
    attend_decode_eight_rows: new AttendDecodeProgram(call({query: info(1, 16, 1, 64), key: info(1, 2, 8192, 64)}), {
      teams: {rows: 8, lanes: 16, keys: 8},
      chunks: 8,
    }),
    attend_decode_odd: new AttendDecodeProgram(odd, {teams: {rows: 2, lanes: 8, keys: 16}, chunks: 8}),
    attend_decode_packed: new AttendDecodeProgram(call({query: info(1, 8, 1, 64), key: int32(1, 2, 8192, 32)}), {
      teams: {rows: 4, lanes: 16, keys: 16},
      chunks: 8,
    }),
    pack_float16: new PackFloat16Program(info(1, 2, 100, 64)),
    unpacked_floats: new UnpackedFloatsProgram(int32(1, 2, 100, 32)),
    attend_decode_forms: new AttendDecodeProgram(formed({...keyMasked, causal: false}), {
      teams: {rows: 1, lanes: 64, keys: 16},
      chunks: 8,
    }),
    attend_forms_sparse: new AttendProgram(everyForm, {...float32, plan: chunkPlan}),
    attend_forms_split: new AttendProgram(formed(chunk), split),
    attend_forms_half_not_causal: float16(formed({...masked, causal: false})),
    attend_matrix_window: onMatrixUnits(windowed),
    attend_matrix_forms: onMatrixUnits(formed(grouped)),
    attend_matrix_forms_not_causal: onMatrixUnits(formed({...keyMasked, causal: false})),
    combine_states_sinks: new CombineStatesProgram(info(800, 8, 84), wide.geometry, info(8, 4)),
    log_sum_exp: new LogSumExpProgram(info(800, 8, 84), wide.geometry),
    log_sum_exp_sinks: new LogSumExpProgram(info(800, 8, 84), wide.geometry, info(8, 4)),
    attend_whole_states: new AttendProgram(windowed, {...float32, chunks: 1}),
    gradient_statistics_by_log_sum_exp: new GradientStatisticsProgram(
      {...grouped, dLogSumExp: info(1, 4, 1000)},
      chunkedTile,
    ),
    head_forms: new HeadFormsProgram({keyLengths: int32(2), alibiSlopes: info(4), sinks: info(4)}, padded.geometry),
    head_forms_sinks: new HeadFormsProgram({sinks: info(4)}, grouped.geometry),
    gradient_statistics_forms: new GradientStatisticsProgram(formed(padded), chunkedTile),
    gradient_statistics_forms_sparse: new GradientStatisticsProgram(everyForm, chunkedTile, joined),
    gradient_query_forms: new GradientQueryProgram(everyForm, chunkedTile, info(2, 4, 100, 8), joined),
    gradient_key_forms: new GradientKeyProgram(formed(grouped), chunkedTile, info(1, 4, 1000, 8)),
    gradient_key_forms_sparse: new GradientKeyProgram(everyForm, chunkedTile, info(2, 4, 100, 8), joined),
    gradient_key_window_not_causal: new GradientKeyProgram({...windowed, causal: false}, chunkedTile, statistics),
    model_rms_norm: new RMSNormProgram(info(100, 256), 1e-5),
    model_rms_norm_odd: new RMSNormProgram(info(100, 33), 1e-5),
    model_rms_norm_added: new RMSNormProgram(info(100, 256), 1e-5, {weight: info(256), residual: info(100, 256)}),
    model_swiglu: new GatedActivationProgram(info(2, 100, 704), 'silu'),
    model_geglu_odd: new GatedActivationProgram(info(2, 3, 33), 'gelu'),
    model_rotary_embedding: new RotaryEmbeddingProgram(rotary(64), 3, 4, 2),
    model_rotary_embedding_odd: new RotaryEmbeddingProgram(rotary(12), 0, 0, 4),
    model_store_rows: new StoreRowsProgram(info(1, 2, 100, 64), info(1, 2, 100, 64), cache.shape, 7),
    model_read_rows: new ReadRowsProgram(cache, 100, true),
    model_store_tokens: new StoreTokensProgram({...newTokens(32), norm: undefined}, cache),
    model_attend_rows: new AttendRowsProgram(newTokens(32), cache),
    model_attend_rows_window: new AttendRowsProgram({...newTokens(32), window: 100}, cache),
    model_attend_rows_one: new AttendRowsProgram(newTokens(1), cache),
    model_last_row: new LastRowProgram(info(32, 896), int32(2)),
    model_choose_token: new ChooseTokenProgram(info(1, 1000), int32(3)),
    packed_product_swiglu: new PackedProductProgram({
      ...{x: info(1, 512), matrix: packed('Q4_K'), up: packed('Q6_K'), residual: info(1, 96)},
      ...{norm: {weight: info(512), epsilon: 1e-6}, bias: info(96), upBias: info(96)},
    }),
    packed_product_geglu: new PackedProductProgram({
      x: info(1, 512),
      matrix: packed('Q4_K'),
      up: packed('Q4_K'),
      activation: 'gelu',
    }),
    packed_product_tiles: new PackedProductProgram({x: info(32, 512), matrix: packed('Q4_K')}),
    packed_product_q4_k: new PackedProductProgram({x: info(3, 512), matrix: packed('Q4_K')}),
    unpack_q6_k: new UnpackProgram(packed('Q6_K')),
    unpack_rows_q5_0: new UnpackRowsProgram(packed('Q5_0'), int32(7)),
    unpack_rows_f32: new UnpackRowsProgram(packed('F32'), int32(7)),
    unpack_float16_q4_0: new UnpackFloat16Program(packed('Q4_0')),
    unpack_float16_f16: new UnpackFloat16Program(packed('F16')),
    unpack_float16_bf16: new UnpackFloat16Program(packed('BF16')),
    normalise_float16: new NormaliseFloat16Program(info(100, 896), info(896), 1e-6),
    join_heads_float16: new JoinHeadsFloat16Program(info(1, 14, 100, 64)),
    product_float32_by_heads: new ProductFloat32Program(
      {x: info(300, 896), weight: info(896, 1024), bias: info(1024)},
      64,
    ),
    product_float32_swiglu: new ProductFloat32Program(
      {x: info(300, 896), weight: info(896, 4864), up: info(896, 4864)},
      0,
    ),
    product_float32_geglu: new ProductFloat32Program(
      {x: info(300, 896), weight: info(896, 4864), up: info(896, 4864)},
      0,
      'gelu',
    ),
    product_matrix_by_heads: new ProductMatrixProgram(
      {x: int32(300, 448), weight: int32(1024, 448), bias: info(1024)},
      64,
      {tile: PRODUCT_TILES['128x128 by 32x64'], units: UNITS},
    ),
    product_matrix_added: new ProductMatrixProgram(
      {x: int32(300, 448), weight: int32(896, 448), residual: info(300, 896)},
      0,
      {tile: PRODUCT_TILES['256x128 by 64x64'], units: UNITS},
    ),
    product_matrix_swiglu: new ProductMatrixProgram(
      {x: int32(300, 448), weight: int32(4864, 448), up: int32(4864, 448)},
      0,
      {tile: PRODUCT_TILES['64x64 by 32x32'], units: UNITS},
    ),
  };
  /** The programs on matrix units for fragments of other sizes, and subgroups of 64 where they take these. */
  function onOtherUnits(): Record<string, AttentionProgram<object>> {
    const others: Record<string, AttentionProgram<object>> = {};
    for (const [name, units] of Object.entries(MATRIX_UNITS)) {
      others[`attend_matrix, ${name}`] = onMatrixUnits(wide, undefined, {units});
      others[`attend_matrix_many_rows, ${name}`] = onMatrixUnits(long, undefined, {units, lanesOfRow: 1});
      if (units.lanes !== 32) continue;
      const tile = PRODUCT_TILES['64x64 by 32x32'];
      const operands = {x: int32(300, 448), weight: int32(4864, 448), up: int32(4864, 448)};
      others[`product_matrix, ${name}`] = new ProductMatrixProgram(operands, 0, {tile, units});
      others[`sampled_mass_matrix, ${name}`] = new SampledMassMatrixProgram(grouped, units, int32(4, 1024, 32), order);
    }
    return others;
  }

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
    for (const [name, program] of Object.entries({...programs, ...onOtherUnits()})) {
      device.pushErrorScope('validation');
      device.createShaderModule({code: extendedCode(program)});
      const error = await device.popErrorScope();
      expect(error?.message ?? '', name).to.equal('');
      checked.push(...program.spec.extensions);
    }
    expect(checked).to.include.members(['f16', 'subgroups', 'chromium_experimental_subgroup_matrix']);
    device.pushErrorScope('validation');
    device.createShaderModule({code: 'enable f16; fn half() -> f16 { return 1.0f; }'});
    expect(await device.popErrorScope(), 'it refuses what is wrong').not.to.equal(null);
    device.destroy();
  });

  it('reads no more storage buffers than every device has', () => {
    for (const [name, {spec}] of Object.entries(programs)) {
      // Eight, of which one is written. The runner asks for more.
      const most = /^(model|packed)_/.test(name) ? Infinity : 7;
      expect(Object.keys(spec.inputs).length, name).to.be.at.most(most);
    }
  });

  it('gives different shaders different keys', () => {
    const keys = Object.values(programs).map(({shaderKey}) => shaderKey);
    expect(new Set(keys).size).to.equal(keys.length);
  });
});
