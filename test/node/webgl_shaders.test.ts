import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {blockGeometry} from '../../src/kernels/block_geometry';
import {
  AttendScoresProgram,
  AttendStatisticsProgram,
  AttendValuesProgram,
  StoreAttentionProgram,
  valueColumns,
} from '../../src/kernels/webgl/attend_passes';
import {
  RemainderScoresProgram,
  RemainderStatisticsProgram,
  RemainderValuesProgram,
} from '../../src/kernels/webgl/attend_remainder';
import type {AttendWalk} from '../../src/kernels/webgl/attend_walk';
import {BlockListsProgram} from '../../src/kernels/webgl/block_lists';
import {BlockLogSumsProgram} from '../../src/kernels/webgl/block_log_sums';
import {BlockMaskProgram} from '../../src/kernels/webgl/block_mask';
import {GradientKeyProgram, KeyWalkScoresProgram} from '../../src/kernels/webgl/gradient_key';
import {GradientQueryProgram, GradientRowsProgram} from '../../src/kernels/webgl/gradient_query';
import {
  SkippedKeyProgram,
  SkippedQueryProgram,
  SkippedWeightsProgram,
  SpreadOverKeysProgram,
} from '../../src/kernels/webgl/gradient_remainder';
import {GradientStatisticsProgram} from '../../src/kernels/webgl/gradient_statistics';
import {KeptMassProgram} from '../../src/kernels/webgl/kept_mass';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyScoresProgram,
  ProxyStatisticsProgram,
} from '../../src/kernels/webgl/permute';
import {indexColumns, RankKeysProgram, SortKeysProgram} from '../../src/kernels/webgl/sort_keys';
import {PermuteRowsProgram} from '../../src/kernels/webgl/permute_rows';
import {MeanQueriesProgram, ProbeRowsProgram, QueryDistancesProgram} from '../../src/kernels/webgl/probe_rows';
import {ProbedScoresProgram, RowLogSumsProgram, SummaryScoresProgram} from '../../src/kernels/webgl/probed_scores';
import type {AttentionProgram} from '../../src/kernels/webgl/program';
import type {RowTexture} from '../../src/kernels/webgl/row_texture';
import {rowLayout} from '../../src/kernels/webgl/row_texture';
import {
  BlockLogitsProgram,
  BlockScoresProgram,
  LogitSumsProgram,
  PoolBlocksProgram,
  ProxyMassProgram,
} from '../../src/kernels/webgl/score_blocks';
import {KeepBlocksProgram, SinkBlocksProgram} from '../../src/kernels/webgl/select_blocks';
import {QueryListsProgram} from '../../src/kernels/webgl/query_lists';
import {KeyPlacesProgram, SumHeadsProgram} from '../../src/kernels/webgl/sum_heads';
import {SummarizeBlocksProgram} from '../../src/kernels/webgl/summarize_blocks';
import {LoadRowsProgram, StoreRowsProgram} from '../../src/kernels/webgl/tensor_rows';
import {expectShader} from './shader_snapshot';

/** The fragment shaders as they go to the compiler, so that a change to them shows in review. */
describe('shader texts of WebGL', () => {
  const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const rows = (count: number, columns: number, layers = 1): RowTexture => ({
    ...rowLayout({rows: count, columns, layers}, 8192)!,
    texture: {},
    framebuffer: {},
  });
  const geometry = blockGeometry(info(1, 4, 1000, 64), info(1, 2, 1000, 64), {blockSize: 128, segmentSize: 256});
  const query = rows(4000, 64);
  const key = rows(2000, 64);
  const tensor = {texture: {}, width: 512, height: 500, offset: 0, size: 256_000};
  const heads = {firstHead: 0, heads: 4};
  const order = {keyScores: rows(12, 256), keyIndices: rows(32, indexColumns(128, 8))};
  const blockScores = rows(32, 8);
  const lists = rows(32, 9);
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
  const queryPlan = {keyIndices: order.keyIndices, queryLists: lists};
  const keyLengths = rows(1, 1);
  const estimate = {geometry, scale: 0.125, causal: true, tileBlocks: 8, firstRow: 0, endRow: 32};
  const notCausal = {...estimate, causal: false};
  const summaries = rows(32, 64, 2);
  const probes = rows(32, 8);
  const paid = {
    summaryScores: rows(128, 4, 8),
    summarySums: rows(128, 4),
    probeScores: rows(64, 4, 8),
    probeSums: rows(64, 4),
  };
  const skipped = {summaries, valueMeans: rows(32, 64), kept: blockScores};
  const range = {first: 100, end: 600};
  const blockWeights = rows(500, 32);
  const owed = rows(32, 192);
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
    pool_blocks: new PoolBlocksProgram(query, key, order.keyIndices, geometry),
    proxy_mass: new ProxyMassProgram(order.keyScores, order.keyIndices, geometry),
    block_logits: new BlockLogitsProgram(rows(32, 64, 2), geometry, 0.125, true),
    logit_sums: new LogitSumsProgram(blockScores),
    block_scores: new BlockScoresProgram(blockScores, rows(32, 1), geometry, true, rows(4, 8)),
    block_scores_pooled: new BlockScoresProgram(blockScores, rows(32, 1), geometry, false),
    summarize_blocks: new SummarizeBlocksProgram(key, order.keyIndices, geometry, true),
    summarize_blocks_means_padded: new SummarizeBlocksProgram(value, order.keyIndices, geometry, false, keyLengths),
    mean_queries: new MeanQueriesProgram(query, geometry),
    query_distances: new QueryDistancesProgram(query, rows(32, 64), geometry),
    probe_rows: new ProbeRowsProgram(rows(32, 128), geometry, 8),
    block_log_sums: new BlockLogSumsProgram(estimate, query, key, order.keyIndices, probes),
    block_log_sums_own: new BlockLogSumsProgram(estimate, query, key, order.keyIndices),
    block_log_sums_not_causal: new BlockLogSumsProgram(notCausal, query, key, order.keyIndices, probes),
    summary_scores: new SummaryScoresProgram(estimate, query, summaries),
    row_log_sums: new RowLogSumsProgram(paid.probeScores),
    row_log_sums_own: new RowLogSumsProgram(paid.summaryScores, rows(128, 4, 8)),
    probed_scores: new ProbedScoresProgram(estimate, {...paid, proxyMass: rows(4, 8)}),
    probed_scores_not_causal_padded: new ProbedScoresProgram({...notCausal, keyLengths}, paid),
    sink_blocks: new SinkBlocksProgram(order.keyIndices, geometry),
    keep_blocks: new KeepBlocksProgram(blockScores, rows(4, 1), geometry, 0.9, true, false),
    keep_blocks_not_causal: new KeepBlocksProgram(blockScores, rows(4, 1), geometry, 0.9, false, false),
    keep_blocks_own_counts: new KeepBlocksProgram(blockScores, rows(4, 1), geometry, 0.9, true, true),
    block_lists: new BlockListsProgram(blockScores),
    kept_mass: new KeptMassProgram(blockScores, lists, false),
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
    gradient_statistics_seen: new GradientStatisticsProgram(
      walk(true, true, 8),
      both,
      query,
      query,
      plan,
      sums.statistics,
    ),
    skipped_weights: new SkippedWeightsProgram(range, {query, dy: query}, known, skipped, geometry, 0.125, true),
    skipped_query: new SkippedQueryProgram(range, query, blockWeights, query, skipped, geometry, 0.125),
    skipped_key_first: new SkippedKeyProgram(range, blockWeights, {query, dy: query}, geometry),
    skipped_key: new SkippedKeyProgram(range, blockWeights, {query, dy: query}, geometry, owed),
    spread_over_keys: new SpreadOverKeysProgram(
      'key',
      query,
      owed,
      key,
      skipped,
      order.keyIndices,
      geometry,
      0.125,
      8,
      keyLengths,
    ),
    spread_over_values: new SpreadOverKeysProgram(
      'value',
      query,
      owed,
      key,
      skipped,
      order.keyIndices,
      geometry,
      0.125,
      8,
    ),
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
    query_lists: new QueryListsProgram(blockScores, 8, 8),
    key_places: new KeyPlacesProgram(order.keyIndices, geometry, 8),
    remainder_scores: new RemainderScoresProgram(walk(true, true, 8), query, skipped, 0.125),
    remainder_statistics: new RemainderStatisticsProgram(walk(true, true, 8), scores),
    remainder_values: new RemainderValuesProgram(walk(true, true, 8), scores, sums.statistics, skipped.valueMeans),
    // Forms of attention.
    gradient_query_padded: new GradientQueryProgram(padded, 0, scores, scores, known, key, undefined),
    key_walk_scores_padded_mask: new KeyWalkScoresProgram(padded, 0, key, query, 64, 0.125, undefined, mask),
    proxy_scores_padded: new ProxyScoresProgram(query, key, geometry, heads, 8, 0.125, padding),
    key_scores_padded: new KeyScoresProgram(rows(256, 256, 8), rows(128, 4), geometry, heads, padding),
    block_scores_padded: new BlockScoresProgram(blockScores, rows(32, 1), geometry, true, rows(4, 8), keyLengths),
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
      const key = `${program.constructor.name} ${program.shaderKey()}`;
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

  it('store_attention_remainder', () => {
    const program = new StoreAttentionProgram(walk(true, true, 8), [sums], plan, sums);
    expectShader('webgl/store_attention_remainder.frag', program.source('tensor'));
  });

  it('store_attention_parts', () => {
    const program = new StoreAttentionProgram(decoding, [sums]);
    expectShader('webgl/store_attention_parts.frag', program.source('tensor'));
  });
});
