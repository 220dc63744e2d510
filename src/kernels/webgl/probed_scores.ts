import {peakWeight, summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {QueryBlockRange} from './block_log_sums.js';
import {
  BlockLogSumsProgram,
  maxOwnBlocks,
  rangeRow,
  rangeUniforms,
  summaryGroups,
  summaryRowsOf,
} from './block_log_sums.js';
import type {AttentionContext} from './context.js';
import {proxyRangeUniforms} from './key_lengths.js';
import type {KeyOrder} from './permute.js';
import {chooseProbeRows} from './probe_rows.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {competingBlocks, competingUniforms, hasProxyRows, ProxyMassProgram} from './score_blocks.js';
import {groupRows, headUniforms, maskedScore, noMaximum, takeTile} from './score_tile.js';
import {SummarizeBlocksProgram} from './summarize_blocks.js';
import {summaryUniforms, writeSummaryScores} from './summary_score.js';

/**
 * The other form of stage 2, where `probeRows` is not 0 (not in the paper): scores as {@link scoreBlocks} gives them, but
 * shares of all that a query block pays, its own segment included; what is missing to 1 in a row goes to that segment.
 *
 * The score of a block is what the block's rows pay to it in the mean, and a tenth of the most that one of the probe rows
 * pays. The mean is estimated by summaries, or, with `exactLastBlock`, known from stage 1.
 *
 * What a row pays to each block is drawn first, then its sum over all blocks, then the scores, for as many query blocks at a
 * time as fill the scratch textures.
 */
export function probedScores(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  probeRows: number,
  keyLengths?: RowTexture,
): RowTexture {
  const {batch, heads, queryBlocks, keyBlocks} = geometry;
  const {drawBuffers, scratchTexels} = context;
  const blockRows = batch * heads * queryBlocks;
  return withScratch(context, (scratch, keep) => {
    const summaries = scratch(new SummarizeBlocksProgram(key, keyIndices, geometry, true, keyLengths).run(context));
    const probes = scratch(chooseProbeRows(context, query, geometry, probeRows));
    const proxyMass =
      exactLastBlock && causal
        ? scratch(new ProxyMassProgram(keyScores, keyIndices, geometry).run(context))
        : undefined;
    const groupTiles =
      (summaryGroups + probes.texels) * Math.ceil(keyBlocks / drawBuffers) +
      summaryGroups * Math.ceil(maxOwnBlocks(geometry) / drawBuffers);
    const rowsAtOnce = Math.max(1, Math.floor(scratchTexels / (groupTiles * drawBuffers)));
    let scores: RowTexture | undefined;
    for (let first = 0; first < blockRows; first += rowsAtOnce) {
      const range = {first, end: Math.min(first + rowsAtOnce, blockRows)};
      withScratch(context, (rangeScratch) => {
        const logSums = (rows?: RowTexture) =>
          rangeScratch(
            new BlockLogSumsProgram(
              query,
              key,
              keyIndices,
              geometry,
              range,
              drawBuffers,
              scale,
              causal,
              rows,
              keyLengths,
            ).run(context),
          );
        const sumsOf = (blocks: RowTexture, own?: RowTexture) =>
          rangeScratch(new RowLogSumsProgram(blocks, own).run(context));
        const summaryPass = new SummaryScoresProgram(
          query,
          summaries,
          geometry,
          range,
          drawBuffers,
          scale,
          causal,
          keyLengths,
        );
        const summaryScores = rangeScratch(summaryPass.run(context));
        const probeScores = logSums(probes);
        const paid = {
          summaryScores,
          // Without a causal mask every block competes.
          summarySums: sumsOf(summaryScores, causal ? logSums() : undefined),
          probeScores,
          probeSums: sumsOf(probeScores),
          proxyMass,
        };
        const program = new ProbedScoresProgram(paid, geometry, range, causal, keyLengths);
        scores ??= keep(program.allocate(context));
        program.draw(context, scores, range.first, range.end);
        // What a range draws is enough for one piece of work on the GPU.
        context.gl.flush();
      });
    }
    return scores!;
  });
}

interface SummaryScoresVariant {
  headDim: number;
  causal: boolean;
  padded: boolean;
  blocks: number;
}

/**
 * log2 of what rows of each query block pay to the key blocks that compete for it, by their summaries, masked for the others.
 * As `BlockLogSumsProgram` gives them.
 */
export class SummaryScoresProgram extends AttentionProgram<SummaryScoresVariant> {
  constructor(
    query: RowTexture,
    summaries: RowTexture,
    geometry: BlockGeometry,
    range: QueryBlockRange,
    blocks: number,
    scale: number,
    causal: boolean,
    keyLengths?: RowTexture,
  ) {
    const {headDim, queryLength, keyBlocks} = geometry;
    const padded = keyLengths !== undefined;
    super({
      inputs: {query, summaries, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        ...competingUniforms(geometry, causal, padded),
        ...summaryUniforms(geometry, scale),
        ...rangeUniforms(range, summaryGroups),
        queryLength: {type: 'int', value: queryLength},
      },
      output: {rows: (range.end - range.first) * summaryGroups, columns: 4 * Math.ceil(keyBlocks / blocks)},
      layers: blocks,
      variant: {headDim, causal, padded, blocks},
      fetches: (groupRows + 2 * blocks) * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, causal, padded, blocks}: SummaryScoresVariant): string {
    return `
// A fragment takes four rows and ${blocks} key blocks, each block a layer.
${competingBlocks(causal, padded)}
${summaryRowsOf}
void compute(int row, int tile) {${rangeRow}
  int firstBlock = tile * ${blocks};
  int competing = competingBlocks(head, queryBlock);
  if (firstBlock >= competing) {
    ${each(blocks, (k) => `result${k} = vec4(${maskedScore});`)}
    return;
  }
  ivec4 queries = rowsOf(group, queryBlock);
  int end = ${padded ? 'keyEnd(head)' : 'keyLength'};
${writeSummaryScores(headDim, blocks)}
}`;
  }
}

interface RowLogSumsVariant {
  blocks: number;
  own: boolean;
}

/** log2 of all that four rows pay: to the blocks of a row of `scores` and, if given, of `ownScores`. One texel a row. */
export class RowLogSumsProgram extends AttentionProgram<RowLogSumsVariant> {
  constructor(scores: RowTexture, ownScores?: RowTexture) {
    super({
      inputs: {scores, ...(ownScores && {ownScores})},
      uniforms: {},
      output: {rows: scores.rows, columns: 4},
      variant: {blocks: scores.layers, own: ownScores !== undefined},
      fetches: (scores.texels + (ownScores?.texels ?? 0)) * scores.layers,
    });
  }

  protected shader({blocks, own}: RowLogSumsVariant): string {
    return `
// A fragment walks over a row of scores. A row that sees nothing gets a sum so large that its weights are 0.
void compute(int row, int texel) {
  vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);
  ivec2 at = scoresAt(row);
  for (int tile = 0; tile < scoresTexels; tile++) {
    ${takeTile(blocks, 'tile')}
  }${
    own
      ? `
  at = ownScoresAt(row);
  for (int tile = 0; tile < ownScoresTexels; tile++) {
    ${takeTile(blocks, 'tile', 'OwnScores')}
  }`
      : ''
  }
  result0 = mix(vec4(-(${maskedScore})), rowMax + log2(rowSum), notEqual(rowSum, vec4(0.0)));
}`;
  }
}

/** What the rows that stand for query blocks pay, as the programs above draw it. */
interface PaidScores {
  summaryScores: RowTexture;
  summarySums: RowTexture;
  probeScores: RowTexture;
  probeSums: RowTexture;
  /** Of stage 1, with `exactLastBlock`. */
  proxyMass?: RowTexture;
}

interface ProbedScoresVariant {
  causal: boolean;
  padded: boolean;
  exactLastBlock: boolean;
  blocks: number;
}

/** The scores. */
export class ProbedScoresProgram extends AttentionProgram<ProbedScoresVariant> {
  constructor(
    {proxyMass, ...paid}: PaidScores,
    geometry: BlockGeometry,
    range: QueryBlockRange,
    causal: boolean,
    keyLengths?: RowTexture,
  ) {
    const {batch, heads, queryBlocks, keyBlocks} = geometry;
    const padded = keyLengths !== undefined;
    const probeGroups = paid.probeSums.rows / (range.end - range.first);
    super({
      inputs: {...paid, ...(proxyMass && {proxyMass}), ...(keyLengths && {keyLengths})},
      uniforms: {
        ...competingUniforms(geometry, causal, padded),
        ...(proxyMass &&
          (padded
            ? proxyRangeUniforms(geometry, causal)
            : {firstProxyBlock: {type: 'int', value: firstProxyBlock(geometry)}})),
        firstBlockRow: {type: 'int', value: range.first},
        probeGroups: {type: 'int', value: probeGroups},
      },
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      variant: {causal, padded, exactLastBlock: proxyMass !== undefined, blocks: paid.probeScores.layers},
      fetches: 5 * (summaryGroups + probeGroups),
    });
  }

  protected shader({causal, padded, exactLastBlock, blocks}: ProbedScoresVariant): string {
    const hasMass = padded ? 'hasProxyRows(head, row % queryBlocks)' : 'row % queryBlocks >= firstProxyBlock';
    const shares = (rows: string, take: string) => `
      ivec2 at = ${rows}ScoresAt(first + group);
      vec4 logSums = read${rows[0].toUpperCase() + rows.slice(1)}Sums(first + group, 0);
      for (int c = 0; c < 4; c++) {
        vec4 shares = exp2(fetch${rows[0].toUpperCase() + rows.slice(1)}Scores(at, tile, firstLayer + c) - logSums);
        ${take}
      }`;
    const summaryMean = `int first = (row - firstBlockRow) * ${summaryGroups};
    for (int group = 0; group < ${summaryGroups}; group++) {${shares(
      'summary',
      `mean[c] += dot(shares, vec4(${1 / summaryRows}));`,
    )}
    }`;
    return `
// A fragment takes four key blocks: the mean of what rows that stand for the query block pay to them${
      exactLastBlock ? ', or masses, in rows\n// that have them,' : ''
    } and the most that a probe row pays.
${competingBlocks(causal, padded)}${exactLastBlock && padded ? hasProxyRows : ''}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int competing = competingBlocks(head, row % queryBlocks);
  if (4 * texel >= competing) {
    result0 = vec4(0.0);
    return;
  }
  int tile = 4 * texel / ${blocks};
  int firstLayer = 4 * texel % ${blocks};
  vec4 mean = vec4(0.0);
  ${
    exactLastBlock
      ? `if (${hasMass}) {
    mean = readProxyMass(head, texel);
  } else {
    ${summaryMean}
  }`
      : `{
    ${summaryMean}
  }`
  }
  vec4 peak = vec4(0.0);
  int first = (row - firstBlockRow) * probeGroups;
  for (int group = 0; group < probeGroups; group++) {${shares(
    'probe',
    'peak[c] = max(peak[c], max(max(shares.x, shares.y), max(shares.z, shares.w)));',
  )}
  }
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  result0 = mix(vec4(0.0), (mean + ${peakWeight} * peak) / ${1 + peakWeight}, competes);
}`;
  }
}
