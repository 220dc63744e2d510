import type {TensorInfo} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {
  derivativeFactors,
  AttendScoresProgram,
  AttendStatisticsProgram,
  AttendValuesProgram,
} from '../../../src/kernels/webgl/attend/attend_passes';
import type {AttendWalk} from '../../../src/kernels/webgl/attend/attend_walk';
import {StoreLogSumExpProgram} from '../../../src/kernels/webgl/attend/store_log_sum_exp';
import {StoreAttentionProgram} from '../../../src/kernels/webgl/attend/store_attention';
import {keyIndexSplit, sumColumns} from '../../../src/kernels/webgl/glsl/tiles';
import {GradientKeyProgram, KeyWalkScoresProgram} from '../../../src/kernels/webgl/gradients/gradient_key';
import {GradientQueryProgram} from '../../../src/kernels/webgl/gradients/gradient_query';
import {GradientStatisticsProgram} from '../../../src/kernels/webgl/gradients/gradient_statistics';
import {GradientRowsProgram} from '../../../src/kernels/webgl/gradients/gradient_walk';
import {QueryListsProgram} from '../../../src/kernels/webgl/gradients/query_lists';
import {KeyPlacesProgram, SumHeadsProgram} from '../../../src/kernels/webgl/gradients/sum_heads';
import {
  KeyScoresProgram,
  ProxyLogSumsProgram,
  ProxyScoresProgram,
  ProxyStatisticsProgram,
} from '../../../src/kernels/webgl/permute/proxy_key_scores';
import {
  SegmentKeyScoresProgram,
  SegmentLogSumsProgram,
  SegmentScoresProgram,
} from '../../../src/kernels/webgl/permute/segment_key_scores';
import {RankKeysProgram, SortKeysProgram} from '../../../src/kernels/webgl/permute/sort_keys';
import {PermuteRowsProgram} from '../../../src/kernels/webgl/permute_rows';
import type {AttentionContext} from '../../../src/kernels/webgl/runtime/context';
import type {AttentionProgram} from '../../../src/kernels/webgl/runtime/program';
import type {RowTexture} from '../../../src/kernels/webgl/runtime/row_texture';
import {rowLayout} from '../../../src/kernels/webgl/runtime/row_texture';
import {LoadRowsProgram, StoreRowsProgram, wholeRows} from '../../../src/kernels/webgl/runtime/tensor_rows';
import {BlockListsProgram} from '../../../src/kernels/webgl/select/block_lists';
import {BlockMaskProgram} from '../../../src/kernels/webgl/select/block_mask';
import {KeptMassProgram} from '../../../src/kernels/webgl/select/kept_mass';
import {NormaliserPiecesProgram, NormalisersProgram} from '../../../src/kernels/webgl/select/normalisers';
import type {SampleWalk} from '../../../src/kernels/webgl/select/sample_walk';
import {SampledMassProgram, SampledSharesProgram} from '../../../src/kernels/webgl/select/sampled_mass';
import {SampledScoresProgram} from '../../../src/kernels/webgl/select/sampled_scores';
import {
  BlockLogitsProgram,
  BlockScoresProgram,
  LogitSumsProgram,
  PoolBlocksProgram,
} from '../../../src/kernels/webgl/select/score_blocks';
import {KeepBlocksProgram, SinkBlocksProgram} from '../../../src/kernels/webgl/select/select_blocks';
import type {WebGLCall} from '../../../src/kernels/webgl/webgl_call';
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
  const value = rows(2000, sumColumns(64, 8));
  const call = (changed: Partial<WebGLCall> = {}, drawBuffers: 4 | 8 = 8): WebGLCall => ({
    ...{op: 'test', geometry, scale: 0.125, causal: true, precision: 'float32'},
    context: {drawBuffers} as AttentionContext,
    tensors: {query: info(1, 4, 1000, 64), key: info(1, 2, 1000, 64)},
    ...{query, key, value, output: query, dy: query},
    ...changed,
  });
  const tensor = {texture: {}, width: 512, height: 500, offset: 0, size: 256_000};
  const heads = {firstHead: 0, heads: 4};
  const order = {keyScores: rows(12, 256), keyIndices: rows(64, keyIndexSplit(geometry, 8).columns)};
  const blockScores = rows(32, 16);
  const lists = rows(32, 17);
  const plan = {keyIndices: order.keyIndices, blockLists: lists};
  const scores = rows(1024, 256, 8);
  const groups = {firstGroup: 0, endGroup: 1024, slotsPerRound: 4, parts: 1};
  const exact = (of = call()): AttendWalk => ({call: of, geometry, keys: key, values: value, ...heads, ...groups});
  const sparse = (of = call()): AttendWalk => ({...exact(of), plan});
  const sums = {statistics: rows(1024, 4, 2), values: rows(1024, 32, 8)};
  const round = {firstSlot: 0, scores, products: scores};
  const rowStatistics = rows(4000, 4);
  const laterRound = {...round, firstSlot: 4, before: sums.values};
  const byKeys = (of = call()) => ({...exact(of), plan: {...plan, blockLists: rows(64, 9)}});
  const keyLengths = rows(1, 1);
  const notCausal = call({causal: false});
  const paddedCall = call({keyLengths});
  const paddedSmall = call({causal: false, keyLengths}, 4);
  const segments = {call: call(), ...heads};
  const paddedSegments = {call: paddedSmall, ...heads};
  const segmentScores = rows(96, 128, 8);
  const sinkBlocks = rows(4, 1);
  const sample: SampleWalk = {
    ...{call: call(), keyIndices: order.keyIndices, sinkBlocks, keys: key},
    ...{firstHead: 0, firstRow: 0, endRow: 32},
  };
  const paddedSample: SampleWalk = {...sample, call: paddedSmall};
  const shares = rows(1024, 8, 8);
  const sampled = {threshold: 0.9, estimate: 'sampled'} as const;
  const pooled = {threshold: 0.9, estimate: 'pooled'} as const;
  const padded = {...heads, call: paddedCall};
  const decoding = {...exact(), parts: 4};
  const fewRows: AttendWalk = {...decoding, rowsOfHead: 2};
  const mask = {rows: rows(32_000, 128), shape: [1, 4, 1000, 1000], dtype: 'float32'};
  const boolMask = {...mask, dtype: 'bool'};
  const masked = exact(call({keyLengths, mask}));
  const formed = (changed: Partial<WebGLCall> = {}) =>
    call({
      geometry: {...geometry, window: 300},
      ...{softCap: 50, alibiSlopes: rows(4, 1), sinks: rows(4, 1)},
      tensors: {query: info(1, 4, 1000, 64), key: info(1, 2, 1000, 64), alibiSlopes: info(4), sinks: info(4)},
      ...changed,
    });
  const windowed = (of: WebGLCall): AttendWalk => ({...exact(of), geometry: of.geometry});
  const capped = {...round, derivatives: scores};
  const permuted = {...heads, keyIndices: order.keyIndices};

  const programs: Record<string, AttentionProgram<object>> = {
    load_rows: new LoadRowsProgram(tensor, [1, 4, 1000, 64], wholeRows(64)),
    load_rows_in_tiles: new LoadRowsProgram(tensor, [1, 4, 1000], keyIndexSplit(geometry, 8)),
    proxy_scores: new ProxyScoresProgram(segments),
    proxy_statistics: new ProxyStatisticsProgram(rows(256, 256, 8)),
    proxy_log_sums: new ProxyLogSumsProgram(segments, rows(256, 4, 2)),
    key_scores: new KeyScoresProgram(segments, rows(256, 256, 8), rows(128, 4)),
    rank_keys: new RankKeysProgram(order.keyScores),
    sort_keys: new SortKeysProgram(call(), rows(12, 256)),
    sort_keys_in_place: new SortKeysProgram(call()),
    segment_scores: new SegmentScoresProgram(segments),
    segment_scores_not_causal_padded: new SegmentScoresProgram(paddedSegments),
    segment_log_sums: new SegmentLogSumsProgram(segments, segmentScores),
    segment_key_scores: new SegmentKeyScoresProgram(segments, segmentScores, rows(96, 4)),
    pool_blocks: new PoolBlocksProgram(call(), order.keyIndices),
    block_logits: new BlockLogitsProgram(call(), rows(32, 64, 2)),
    logit_sums: new LogitSumsProgram(blockScores),
    block_scores: new BlockScoresProgram(call(), blockScores, rows(32, 1)),
    normaliser_pieces: new NormaliserPiecesProgram(sample),
    normaliser_pieces_not_causal_padded: new NormaliserPiecesProgram(paddedSample),
    normalisers: new NormalisersProgram(rows(1024, 24, 2), call()),
    normalisers_window: new NormalisersProgram(rows(1024, 24, 2), formed()),
    sampled_shares: new SampledSharesProgram(sample, rows(1024, 4)),
    sampled_shares_not_causal_padded: new SampledSharesProgram(paddedSample, rows(1024, 4)),
    sampled_mass: new SampledMassProgram(sample, shares),
    sampled_mass_not_causal_padded: new SampledMassProgram(paddedSample, shares),
    sampled_scores: new SampledScoresProgram(rows(32, 16, 2)),
    sink_blocks: new SinkBlocksProgram(call(), order.keyIndices),
    keep_blocks: new KeepBlocksProgram(call(), sampled, blockScores, sinkBlocks),
    keep_blocks_pooled: new KeepBlocksProgram(call(), pooled, blockScores, sinkBlocks),
    keep_blocks_pooled_not_causal: new KeepBlocksProgram(notCausal, pooled, blockScores, sinkBlocks),
    block_lists: new BlockListsProgram(notCausal, blockScores),
    kept_mass: new KeptMassProgram(sampled, rows(32, 16, 2), lists),
    kept_mass_pooled: new KeptMassProgram(pooled, blockScores, lists),
    block_mask: new BlockMaskProgram(lists),
    permute_rows: new PermuteRowsProgram(call(), key, permuted),
    attend_scores_sparse: new AttendScoresProgram(sparse(), 0),
    attend_scores_exact: new AttendScoresProgram(exact(), 0),
    attend_scores_exact_not_causal_4_buffers: new AttendScoresProgram(exact(call({causal: false}, 4)), 0),
    attend_statistics_first: new AttendStatisticsProgram(sparse(), 0, scores),
    attend_statistics: new AttendStatisticsProgram(sparse(), 4, scores, sums.statistics),
    attend_values_first: new AttendValuesProgram(exact(), 0, scores, sums.statistics),
    attend_values: new AttendValuesProgram(sparse(), 4, scores, sums.statistics, sums),
    gradient_statistics: new GradientStatisticsProgram(sparse(), [sums.statistics, sums.statistics]),
    gradient_query_first: new GradientQueryProgram(exact(), rowStatistics, round),
    gradient_query: new GradientQueryProgram(sparse(), rowStatistics, laterRound),
    gradient_rows: new GradientRowsProgram(sparse(), sums.values, 64, 0.125),
    key_walk_scores_sparse: new KeyWalkScoresProgram(byKeys(), 0),
    key_walk_scores_exact: new KeyWalkScoresProgram(exact(), 0),
    gradient_key_first: new GradientKeyProgram(exact(), 'key', rowStatistics, round),
    gradient_key: new GradientKeyProgram(byKeys(), 'key', rowStatistics, laterRound),
    gradient_value: new GradientKeyProgram(byKeys(notCausal), 'value', rowStatistics, laterRound),
    query_lists: new QueryListsProgram(call(), blockScores),
    key_places: new KeyPlacesProgram(call(), order.keyIndices),
    // Forms of attention.
    gradient_query_padded: new GradientQueryProgram(exact(paddedCall), rowStatistics, round),
    key_walk_scores_padded_mask: new KeyWalkScoresProgram(masked, 0),
    proxy_scores_padded: new ProxyScoresProgram(padded),
    key_scores_padded: new KeyScoresProgram(padded, rows(256, 256, 8), rows(128, 4)),
    block_scores_padded: new BlockScoresProgram(paddedCall, blockScores, rows(32, 1)),
    block_lists_causal: new BlockListsProgram(call(), blockScores),
    permute_rows_kept: new PermuteRowsProgram(call(), {tensor, rowSize: 64, columns: 64, kept: blockScores}, permuted),
    attend_scores_padded_mask: new AttendScoresProgram(masked, 0),
    segment_scores_forms: new SegmentScoresProgram({...segments, call: formed({keyLengths, mask})}),
    normaliser_pieces_forms: new NormaliserPiecesProgram({...sample, call: formed({mask})}),
    normaliser_pieces_forms_not_causal: new NormaliserPiecesProgram({...sample, call: formed({causal: false})}),
    sampled_shares_forms: new SampledSharesProgram(
      {...sample, call: formed({causal: false, mask: boolMask})},
      rows(1024, 4),
    ),
    keep_blocks_window: new KeepBlocksProgram(formed(), sampled, blockScores, sinkBlocks),
    keep_blocks_window_not_causal: new KeepBlocksProgram(formed({causal: false}), pooled, blockScores, sinkBlocks),
    block_lists_window_not_causal: new BlockListsProgram(formed({causal: false}), blockScores),
    block_logits_window: new BlockLogitsProgram(formed(), rows(32, 64, 2)),
    block_scores_window: new BlockScoresProgram(formed(), blockScores, rows(32, 1)),
    attend_scores_forms: new AttendScoresProgram(windowed(formed({keyLengths, mask})), 0),
    attend_scores_forms_sparse: new AttendScoresProgram({...windowed(formed({causal: false, mask})), plan}, 0),
    attend_scores_sparse_mask: new AttendScoresProgram({...exact(call({mask: boolMask})), plan}, 0),
    attend_values_window: new AttendValuesProgram(windowed(formed({causal: false})), 0, scores, sums.statistics),
    key_walk_scores_forms: new KeyWalkScoresProgram(windowed(formed({keyLengths})), 0),
    key_walk_scores_forms_not_causal: new KeyWalkScoresProgram(windowed(formed({causal: false})), 0),
    key_walk_derivatives: new KeyWalkScoresProgram(exact(formed()), 0, derivativeFactors(exact(formed()))),
    gradient_statistics_sinks: new GradientStatisticsProgram(windowed(formed()), [sums.statistics]),
    gradient_statistics_by_log_sum_exp: new GradientStatisticsProgram(exact(call({dLogSumExp: rows(4000, 1)})), [
      sums.statistics,
    ]),
    gradient_query_soft_cap: new GradientQueryProgram(windowed(formed()), rowStatistics, capped),
    gradient_key_soft_cap: new GradientKeyProgram(windowed(formed()), 'key', rowStatistics, capped),
    attend_values_parts: new AttendValuesProgram(decoding, 0, scores, sums.statistics),
    attend_scores_few_rows: new AttendScoresProgram(fewRows, 0),
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
    expectShader('webgl/store_rows.frag', new StoreRowsProgram(lists, wholeRows(9)).source('tensor'));
  });

  it('sum_heads', () => {
    const program = new SumHeadsProgram(call(), query, rows(4000, 1));
    expectShader('webgl/sum_heads.frag', program.source('tensor'));
  });

  it('store_attention', () => {
    const program = new StoreAttentionProgram(sparse(), [sums, sums]);
    expectShader('webgl/store_attention.frag', program.source('tensor'));
  });

  it('store_log_sum_exp', () => {
    const program = new StoreLogSumExpProgram(exact(), [sums, sums]);
    expectShader('webgl/store_log_sum_exp.frag', program.source('tensor'));
  });

  it('store_log_sum_exp_parts_sinks', () => {
    const program = new StoreLogSumExpProgram({...windowed(formed()), parts: 4}, [sums]);
    expectShader('webgl/store_log_sum_exp_parts_sinks.frag', program.source('tensor'));
  });

  it('store_attention_sinks', () => {
    const program = new StoreAttentionProgram(windowed(formed()), [sums]);
    expectShader('webgl/store_attention_sinks.frag', program.source('tensor'));
  });

  it('store_attention_parts', () => {
    const program = new StoreAttentionProgram(decoding, [sums]);
    expectShader('webgl/store_attention_parts.frag', program.source('tensor'));
  });
});
