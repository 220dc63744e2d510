import {peakWeight, summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {EstimateVariant, EstimateWalk} from './block_log_sums.js';
import {
  BlockLogSumsProgram,
  estimateUniforms,
  estimateVariant,
  groupOfRow,
  maxOwnBlocks,
  summaryGroups,
  summaryRowsOf,
} from './block_log_sums.js';
import type {AttentionContext} from './context.js';
import {proxyRangeUniforms} from './key_lengths.js';
import type {KeyOrder} from './permute.js';
import {chooseProbeRows} from './probe_rows.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {competingBlocks, hasProxyRows, ProxyMassProgram} from './score_blocks.js';
import {groupRows, maskedScore, noMaximum, takeTile} from './score_tile.js';
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
 *
 * @param order with the summaries of the key blocks, variances included (`summarize_blocks.ts`).
 */
export function probedScores(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  order: KeyOrder & {summaries: RowTexture},
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  probeRows: number,
  keyLengths?: RowTexture,
): RowTexture {
  const {batch, heads, queryBlocks, keyBlocks} = geometry;
  const {drawBuffers, scratchTexels} = context;
  const {keyScores, keyIndices, summaries} = order;
  const blockRows = batch * heads * queryBlocks;
  return withScratch(context, (scratch, keep) => {
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
    for (let firstRow = 0; firstRow < blockRows; firstRow += rowsAtOnce) {
      const endRow = Math.min(firstRow + rowsAtOnce, blockRows);
      const walk: EstimateWalk = {geometry, scale, causal, tileBlocks: drawBuffers, firstRow, endRow, keyLengths};
      withScratch(context, (rangeScratch) => {
        const logSums = (rows?: RowTexture) =>
          rangeScratch(new BlockLogSumsProgram(walk, query, key, keyIndices, rows).run(context));
        const sumsOf = (blocks: RowTexture, own?: RowTexture) =>
          rangeScratch(new RowLogSumsProgram(blocks, own).run(context));
        const summaryScores = rangeScratch(new SummaryScoresProgram(walk, query, summaries).run(context));
        const probeScores = logSums(probes);
        const paid = {
          summaryScores,
          // Without a causal mask every block competes.
          summarySums: sumsOf(summaryScores, causal ? logSums() : undefined),
          probeScores,
          probeSums: sumsOf(probeScores),
          proxyMass,
        };
        const program = new ProbedScoresProgram(walk, paid);
        scores ??= keep(program.allocate(context));
        program.draw(context, scores, firstRow, endRow);
        // What these blocks draw is enough for one piece of work on the GPU.
        context.gl.flush();
      });
    }
    return scores!;
  });
}

interface SummaryScoresVariant extends EstimateVariant {
  headDim: number;
}

/**
 * log2 of what rows of each query block pay to the key blocks that compete for it, by their summaries, masked for the others.
 * As `BlockLogSumsProgram` gives them.
 */
export class SummaryScoresProgram extends AttentionProgram<SummaryScoresVariant> {
  constructor(walk: EstimateWalk, query: RowTexture, summaries: RowTexture) {
    const {geometry, scale, tileBlocks, firstRow, endRow, keyLengths} = walk;
    const {headDim, keyBlocks} = geometry;
    super({
      inputs: {query, summaries, ...(keyLengths && {keyLengths})},
      uniforms: {...estimateUniforms(walk, summaryGroups), ...summaryUniforms(geometry, scale)},
      output: {rows: (endRow - firstRow) * summaryGroups, columns: 4 * Math.ceil(keyBlocks / tileBlocks)},
      layers: tileBlocks,
      variant: {...estimateVariant(walk), headDim},
      fetches: (groupRows + 2 * tileBlocks) * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, causal, padded, tileBlocks}: SummaryScoresVariant): string {
    return `
// A fragment takes four rows and ${tileBlocks} key blocks, each block a layer.
${competingBlocks(causal, padded)}
${summaryRowsOf}
void compute(int row, int tile) {${groupOfRow}
  int firstBlock = tile * ${tileBlocks};
  int competing = competingBlocks(head, queryBlock);
  if (firstBlock >= competing) {
    ${each(tileBlocks, (k) => `result${k} = vec4(${maskedScore});`)}
    return;
  }
  ivec4 queries = rowsOf(group, queryBlock);
  int end = ${padded ? 'keyEnd(head)' : 'keyLength'};
${writeSummaryScores(headDim, tileBlocks)}
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

interface ProbedScoresVariant extends EstimateVariant {
  exactLastBlock: boolean;
}

/** The scores. */
export class ProbedScoresProgram extends AttentionProgram<ProbedScoresVariant> {
  constructor(walk: EstimateWalk, {proxyMass, ...paid}: PaidScores) {
    const {geometry, causal, firstRow, endRow, keyLengths} = walk;
    const {batch, heads, queryBlocks, keyBlocks} = geometry;
    const probeGroups = paid.probeSums.rows / (endRow - firstRow);
    super({
      inputs: {...paid, ...(proxyMass && {proxyMass}), ...(keyLengths && {keyLengths})},
      uniforms: {
        ...estimateUniforms(walk, probeGroups),
        ...(proxyMass &&
          (keyLengths
            ? proxyRangeUniforms(geometry, causal)
            : {firstProxyBlock: {type: 'int', value: firstProxyBlock(geometry)}})),
      },
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      variant: {...estimateVariant(walk), exactLastBlock: proxyMass !== undefined},
      fetches: 5 * (summaryGroups + probeGroups),
    });
  }

  protected shader({causal, padded, exactLastBlock, tileBlocks}: ProbedScoresVariant): string {
    const hasMass = padded ? 'hasProxyRows(head, row % queryBlocks)' : 'row % queryBlocks >= firstProxyBlock';
    const estimate = `meanShares((row - firstBlockRow) * ${summaryGroups}, tile, firstLayer)`;
    return `
// A fragment takes four key blocks: the mean of what the rows that stand for the query block pay to them${
      exactLastBlock ? ' (or masses, in\n// rows that have them)' : ''
    } and the most that a probe row pays.
${competingBlocks(causal, padded)}${exactLastBlock && padded ? hasProxyRows : ''}
vec4 meanShares(int firstGroup, int tile, int firstLayer) {
  vec4 mean = vec4(0.0);
  for (int i = firstGroup; i < firstGroup + ${summaryGroups}; i++) {
    ivec2 at = summaryScoresAt(i);
    vec4 logSums = readSummarySums(i, 0);
    for (int c = 0; c < 4; c++) {
      vec4 shares = exp2(fetchSummaryScores(at, tile, firstLayer + c) - logSums);
      mean[c] += dot(shares, vec4(${1 / summaryRows}));
    }
  }
  return mean;
}
vec4 peakShares(int firstGroup, int tile, int firstLayer) {
  vec4 peak = vec4(0.0);
  for (int i = firstGroup; i < firstGroup + groups; i++) {
    ivec2 at = probeScoresAt(i);
    vec4 logSums = readProbeSums(i, 0);
    for (int c = 0; c < 4; c++) {
      vec4 shares = exp2(fetchProbeScores(at, tile, firstLayer + c) - logSums);
      peak[c] = max(peak[c], max(max(shares.x, shares.y), max(shares.z, shares.w)));
    }
  }
  return peak;
}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int competing = competingBlocks(head, row % queryBlocks);
  if (4 * texel >= competing) {
    result0 = vec4(0.0);
    return;
  }
  int tile = 4 * texel / ${tileBlocks};
  int firstLayer = 4 * texel % ${tileBlocks};
  vec4 mean = ${exactLastBlock ? `${hasMass} ? readProxyMass(head, texel) : ` : ''}${estimate};
  vec4 peak = peakShares((row - firstBlockRow) * groups, tile, firstLayer);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  result0 = mix(vec4(0.0), (mean + ${peakWeight} * peak) / ${1 + peakWeight}, competes);
}`;
  }
}
