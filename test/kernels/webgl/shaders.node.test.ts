import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {
  AttendScoresProgram,
  AttendStatisticsProgram,
  AttendValuesProgram,
  StoreAttentionProgram,
  valueColumns,
} from '../../../src/kernels/webgl/attend/attend_passes';
import type {AttendWalk} from '../../../src/kernels/webgl/attend/attend_walk';
import {BlockListsProgram} from '../../../src/kernels/webgl/select/block_lists';
import {BlockMaskProgram} from '../../../src/kernels/webgl/select/block_mask';
import {GradientKeyProgram, KeyWalkScoresProgram} from '../../../src/kernels/webgl/gradients/gradient_key';
import {GradientQueryProgram, GradientRowsProgram} from '../../../src/kernels/webgl/gradients/gradient_query';
import {GradientStatisticsProgram} from '../../../src/kernels/webgl/gradients/gradient_statistics';
import {KeptMassProgram} from '../../../src/kernels/webgl/select/kept_mass';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyScoresProgram,
  ProxyStatisticsProgram,
} from '../../../src/kernels/webgl/permute/permute';
import {indexColumns, RankKeysProgram, SortKeysProgram} from '../../../src/kernels/webgl/permute/sort_keys';
import {PermuteRowsProgram} from '../../../src/kernels/webgl/permute/permute_rows';
import type {AttentionProgram} from '../../../src/kernels/webgl/runtime/program';
import type {RowTexture} from '../../../src/kernels/webgl/runtime/row_texture';
import {rowLayout} from '../../../src/kernels/webgl/runtime/row_texture';
import type {SampleWalk} from '../../../src/kernels/webgl/select/sampled_mass';
import {
  NormaliserPiecesProgram,
  NormalisersProgram,
  SampledMassProgram,
  SampledScoresProgram,
  SampledSharesProgram,
} from '../../../src/kernels/webgl/select/sampled_mass';
import {
  BlockLogitsProgram,
  BlockScoresProgram,
  LogitSumsProgram,
  PoolBlocksProgram,
} from '../../../src/kernels/webgl/select/score_blocks';
import type {SegmentWalk} from '../../../src/kernels/webgl/permute/segment_key_scores';
import {
  SegmentKeyScoresProgram,
  SegmentLogSumsProgram,
  SegmentScoresProgram,
} from '../../../src/kernels/webgl/permute/segment_key_scores';
import {KeepBlocksProgram, SinkBlocksProgram} from '../../../src/kernels/webgl/select/select_blocks';
import {QueryListsProgram} from '../../../src/kernels/webgl/gradients/query_lists';
import {KeyPlacesProgram, SumHeadsProgram} from '../../../src/kernels/webgl/gradients/sum_heads';
import {LoadRowsProgram, StoreRowsProgram} from '../../../src/kernels/webgl/runtime/tensor_rows';
import {expectShader} from '../shader_snapshot';

/** The fragment shaders as they go to the compiler, so that a change to them shows in review. */
describe('shader texts of WebGL', () => {
  const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const rows = (count: number, columns: number, layers = 1): RowTexture => ({
    ...rowLayout({rows: count, columns, layers}, 8192)!,
    texture: {},
    framebuffer: {},
  });
  const sizes = {blockSize: 128, keyBlockSize: 64, segmentSize: 256};
  const geometry = blockGeometry(info(1, 4, 1000, 64), info(1, 2, 1000, 64), sizes);
  const query = rows(4000, 64);
  const key = rows(2000, 64);
  const tensor = {texture: {}, width: 512, height: 500, offset: 0, size: 256_000};
  const heads = {firstHead: 0, heads: 4};
  const order = {keyScores: rows(12, 256), keyIndices: rows(64, indexColumns(64, 8))};
  const blockScores = rows(32, 16);
  const lists = rows(32, 17);
  const plan = {keyIndices: order.keyIndices, blockLists: lists};
  const scores = rows(1024, 256, 8);
  const walk = (sparse: boolean, causal: boolean, tileKeys: number): AttendWalk => ({
    geometry,
    sparse,
    causal,
    tileKeys,
    ...heads,
    firstGroup: 0,
    endGroup: 1024,
    slotsPerRound: 4,
    parts: 1,
  });
  const sums = {statistics: rows(1024, 4, 2), values: rows(1024, 32, 8)};
  const value = rows(2000, valueColumns(64, 8));
  const both = [sums.statistics, sums.statistics];
  const known = rows(4000, 4);
  const rest = sums.values;
  const queryPlan = {keyIndices: order.keyIndices, queryLists: rows(64, 9)};
  const keyLengths = rows(1, 1);
  const segments = {geometry, causal: true, tileKeys: 8, ...heads};
  const paddedSegments: SegmentWalk = {...segments, causal: false, tileKeys: 4, keyLengths};
  const segmentScores = rows(96, 128, 8);
  const sample = {geometry, scale: 0.125, causal: true, tileKeys: 8, firstHead: 0, firstRow: 0, endRow: 32};
  const paddedSample: SampleWalk = {...sample, causal: false, tileKeys: 4, keyLengths};
  const shares = rows(1024, 8, 8);
  const sink = rows(4, 1);
  const sampled = {threshold: 0.9, estimate: 'sampled'} as const;
  const pooled = {threshold: 0.9, estimate: 'pooled'} as const;
  const padding = {keyLengths, causal: true};
  const padded = {...walk(false, true, 8), keyLengths};
  const decoding = {...walk(false, true, 8), parts: 4};
  const mask = {rows: rows(32_000, 128), shape: [1, 4, 1000, 1000], dtype: 'float32'};

  const programs: Record<string, AttentionProgram<object>> = {
    load_rows: new LoadRowsProgram(tensor, [1, 4, 1000, 64], {inner: 64, piece: 64}, 64, 0),
    proxy_scores: new ProxyScoresProgram(query, key, geometry, heads, 8, 0.125),
    proxy_statistics: new ProxyStatisticsProgram(rows(256, 256, 8)),
    proxy_log_sums: new ProxyLogSumsProgram(rows(256, 4, 2), geometry, heads),
    key_scores: new KeyScoresProgram(rows(256, 256, 8), rows(128, 4), geometry, heads),
    rank_keys: new RankKeysProgram(order.keyScores),
    sort_keys: new SortKeysProgram(geometry, 8, rows(12, 256)),
    sort_keys_in_place: new SortKeysProgram(geometry, 8),
    segment_scores: new SegmentScoresProgram(segments, query, key, 0.125),
    segment_scores_not_causal_padded: new SegmentScoresProgram(paddedSegments, query, key, 0.125),
    segment_log_sums: new SegmentLogSumsProgram(segments, segmentScores),
    segment_key_scores: new SegmentKeyScoresProgram(segments, segmentScores, rows(96, 4)),
    pool_blocks: new PoolBlocksProgram(query, key, order.keyIndices, geometry),
    block_logits: new BlockLogitsProgram(rows(32, 64, 2), geometry, 0.125, true),
    logit_sums: new LogitSumsProgram(blockScores),
    block_scores: new BlockScoresProgram(blockScores, rows(32, 1), geometry, true),
    normaliser_pieces: new NormaliserPiecesProgram(sample, query, key, order.keyIndices, sink),
    normaliser_pieces_not_causal_padded: new NormaliserPiecesProgram(paddedSample, query, key, order.keyIndices, sink),
    normalisers: new NormalisersProgram(rows(1024, 24, 2)),
    sampled_shares: new SampledSharesProgram(sample, query, key, rows(1024, 4)),
    sampled_shares_not_causal_padded: new SampledSharesProgram(paddedSample, query, key, rows(1024, 4)),
    sampled_mass: new SampledMassProgram(sample, shares),
    sampled_mass_not_causal_padded: new SampledMassProgram(paddedSample, shares),
    sampled_scores: new SampledScoresProgram(rows(32, 16, 2)),
    sink_blocks: new SinkBlocksProgram(order.keyIndices, geometry),
    keep_blocks: new KeepBlocksProgram(blockScores, sink, geometry, true, sampled),
    keep_blocks_pooled: new KeepBlocksProgram(blockScores, sink, geometry, true, pooled),
    keep_blocks_pooled_not_causal: new KeepBlocksProgram(blockScores, sink, geometry, false, pooled),
    block_lists: new BlockListsProgram(blockScores),
    kept_mass: new KeptMassProgram(rows(32, 16, 2), lists, 'sampled'),
    kept_mass_pooled: new KeptMassProgram(blockScores, lists, 'pooled'),
    block_mask: new BlockMaskProgram(lists),
    permute_rows: new PermuteRowsProgram(key, order.keyIndices, geometry, 0, 4, 8),
    attend_scores_sparse: new AttendScoresProgram(walk(true, true, 8), 0, query, key, 0.125, plan),
    attend_scores_exact: new AttendScoresProgram(walk(false, true, 8), 0, query, key, 0.125),
    attend_scores_exact_not_causal_4_buffers: new AttendScoresProgram(walk(false, false, 4), 0, query, key, 0.125),
    attend_statistics_first: new AttendStatisticsProgram(walk(true, true, 8), 0, scores, undefined, plan),
    attend_statistics: new AttendStatisticsProgram(walk(true, true, 8), 4, scores, sums, plan),
    attend_values_first: new AttendValuesProgram(walk(false, true, 8), 0, scores, sums.statistics, value, undefined),
    attend_values: new AttendValuesProgram(walk(true, true, 8), 4, scores, sums.statistics, value, sums, plan),
    gradient_statistics: new GradientStatisticsProgram(walk(true, true, 8), both, query, query, plan),
    gradient_query_first: new GradientQueryProgram(walk(false, true, 8), 0, scores, scores, known, key, undefined),
    gradient_query: new GradientQueryProgram(walk(true, true, 8), 4, scores, scores, known, key, sums.values, plan),
    gradient_rows: new GradientRowsProgram(walk(true, true, 8), sums.values, 64, 0.125),
    key_walk_scores_sparse: new KeyWalkScoresProgram(walk(true, true, 8), 0, key, query, 64, 0.125, queryPlan),
    key_walk_scores_exact: new KeyWalkScoresProgram(walk(false, true, 8), 0, key, query, 64, 0.125),
    gradient_key_first: new GradientKeyProgram(walk(false, true, 8), 0, 'key', scores, scores, known, query, undefined),
    gradient_key: new GradientKeyProgram(walk(true, true, 8), 4, 'key', scores, scores, known, query, rest, queryPlan),
    gradient_value: new GradientKeyProgram(
      walk(true, false, 8),
      4,
      'value',
      scores,
      scores,
      known,
      query,
      rest,
      queryPlan,
    ),
    query_lists: new QueryListsProgram(blockScores, 8, 16),
    key_places: new KeyPlacesProgram(order.keyIndices, geometry, 8),
    // Forms of attention.
    gradient_query_padded: new GradientQueryProgram(padded, 0, scores, scores, known, key, undefined),
    key_walk_scores_padded_mask: new KeyWalkScoresProgram(padded, 0, key, query, 64, 0.125, undefined, mask),
    proxy_scores_padded: new ProxyScoresProgram(query, key, geometry, heads, 8, 0.125, padding),
    key_scores_padded: new KeyScoresProgram(rows(256, 256, 8), rows(128, 4), geometry, heads, padding),
    block_scores_padded: new BlockScoresProgram(blockScores, rows(32, 1), geometry, true, keyLengths),
    block_lists_of_a_plan: new BlockListsProgram(blockScores, geometry),
    permute_rows_kept: new PermuteRowsProgram(
      {tensor, rowSize: 64, columns: 64, kept: blockScores},
      order.keyIndices,
      geometry,
      0,
      4,
      8,
    ),
    attend_scores_padded_mask: new AttendScoresProgram(padded, 0, query, key, 0.125, undefined, mask),
    attend_values_parts: new AttendValuesProgram(decoding, 0, scores, sums.statistics, value, undefined),
  };
  for (const [name, program] of Object.entries(programs)) {
    it(name, () => expectShader(`webgl/${name}.frag`, program.source()));
  }

  it('gives different shaders different keys', () => {
    const sources = new Map<string, string>();
    for (const program of Object.values(programs)) {
      const key = `${program.shaderKey()}`;
      expect(sources.get(key) ?? program.source()).to.equal(program.source());
      sources.set(key, program.source());
    }
    expect(new Set(sources.values()).size).to.equal(sources.size);
  });

  it('store_rows', () => {
    expectShader('webgl/store_rows.frag', new StoreRowsProgram(lists, {inner: 9, piece: 9}).source('tensor'));
  });

  it('sum_heads', () => {
    const program = new SumHeadsProgram(query, geometry, 64, rows(4000, 1));
    expectShader('webgl/sum_heads.frag', program.source('tensor'));
  });

  it('store_attention', () => {
    const program = new StoreAttentionProgram(walk(true, true, 8), [sums, sums], plan);
    expectShader('webgl/store_attention.frag', program.source('tensor'));
  });

  it('store_attention_parts', () => {
    const program = new StoreAttentionProgram(decoding, [sums]);
    expectShader('webgl/store_attention_parts.frag', program.source('tensor'));
  });
});
