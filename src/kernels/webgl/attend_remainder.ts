import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {Take} from '../scratch.js';
import type {RunningSums} from './attend_passes.js';
import {valueTexels} from './attend_passes.js';
import type {AttendWalk, BlockPlan} from './attend_walk.js';
import {groupAtText, walkUniforms} from './attend_walk.js';
import {blockMask} from './block_mask.js';
import type {AttentionContext} from './context.js';
import type {Uniforms} from './program.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {competingBlocks, competingUniforms} from './score_blocks.js';
import {groupRows, maskedScore, noMaximum, takeTile} from './score_tile.js';
import {SummarizeBlocksProgram} from './summarize_blocks.js';
import {summaryUniforms, writeSummaryScores} from './summary_score.js';

/** What is known of the blocks that a plan skips. */
export interface SkippedBlocks {
  /** Of keys, with variances; of values, their means alone. */
  summaries: RowTexture;
  valueMeans: RowTexture;
  /** The plan's dense mask: the blocks that are not skipped. */
  kept: RowTexture;
}

/** Summaries of the blocks of a plan; those that it does not have are made and handed to `scratch`. */
export function summarizeSkipped(
  context: AttentionContext,
  key: RowTexture,
  value: RowTexture,
  {keyIndices, blockLists, summaries}: BlockPlan,
  geometry: BlockGeometry,
  scratch: Take<RowTexture>,
  keyLengths?: RowTexture,
): SkippedBlocks {
  const summarize = (source: RowTexture, variance: boolean) =>
    scratch(new SummarizeBlocksProgram(source, keyIndices, geometry, variance, keyLengths).run(context));
  return {
    summaries: summaries ?? summarize(key, true),
    valueMeans: summarize(value, false),
    kept: scratch(blockMask(context, blockLists)),
  };
}

/**
 * Part of stage 4, beside the blocks of the lists: what the query rows of a range of groups pay to the blocks that compete
 * for them and are skipped, by their summaries: a skipped block is one key with the weight of all of its keys
 * (`block_estimate.ts`), and their mean value. Blocks of segments that a row stands in are never skipped.
 *
 * The online softmax of `attend` in one round: scores, then maxima and sums, then sums of values, handed to `scratch`.
 */
export function attendRemainder(
  context: AttentionContext,
  query: RowTexture,
  skipped: SkippedBlocks,
  walk: AttendWalk,
  scale: number,
  scratch: Take<RowTexture>,
): RunningSums {
  const {scores, statistics} = remainderStatistics(context, query, skipped, walk, scale, scratch);
  const values = scratch(new RemainderValuesProgram(walk, scores, statistics, skipped.valueMeans).run(context));
  context.gl.flush();
  return {statistics, values};
}

/** The scores, and maxima and sums of the rows: what the gradients need, too. */
export function remainderStatistics(
  context: AttentionContext,
  query: RowTexture,
  skipped: SkippedBlocks,
  walk: AttendWalk,
  scale: number,
  scratch: Take<RowTexture>,
): {scores: RowTexture; statistics: RowTexture} {
  const scores = scratch(new RemainderScoresProgram(walk, query, skipped, scale).run(context));
  return {scores, statistics: scratch(new RemainderStatisticsProgram(walk, scores).run(context))};
}

interface RemainderVariant {
  causal: boolean;
  padded: boolean;
  blocks: number;
}

const remainderVariant = ({causal, keyLengths, tileKeys}: AttendWalk): RemainderVariant => ({
  causal,
  padded: keyLengths !== undefined,
  blocks: tileKeys,
});

const remainderUniforms = (walk: AttendWalk): Uniforms => ({
  ...walkUniforms(walk),
  ...competingUniforms(walk.geometry, walk.causal, walk.keyLengths !== undefined),
});

const paddingInput = ({keyLengths}: AttendWalk) => keyLengths && {keyLengths};

/** Shader text: the groups of `attend`, and the blocks that compete for them. */
const groupsText = ({causal, padded}: RemainderVariant) => `${competingBlocks(causal, padded)}
${groupAtText}`;

/** Scores of skipped blocks, masked for the others. A row a group; texel t, layer i: key block i of tile t, with four rows. */
export class RemainderScoresProgram extends AttentionProgram<RemainderVariant & {headDim: number}> {
  constructor(walk: AttendWalk, query: RowTexture, {summaries, kept}: SkippedBlocks, scale: number) {
    const {geometry, tileKeys, firstGroup, endGroup} = walk;
    const {headDim, keyBlocks} = geometry;
    super({
      inputs: {query, summaries, kept, ...paddingInput(walk)},
      uniforms: {...remainderUniforms(walk), ...summaryUniforms(geometry, scale)},
      output: {rows: endGroup - firstGroup, columns: 4 * Math.ceil(keyBlocks / tileKeys)},
      layers: tileKeys,
      variant: {...remainderVariant(walk), headDim},
      fetches: (groupRows + 2 * tileKeys) * Math.ceil(headDim / 4) + tileKeys / 4,
    });
  }

  protected shader(variant: RemainderVariant & {headDim: number}): string {
    const {padded, headDim, blocks} = variant;
    return `
// A fragment computes the scores of a group with ${blocks} key blocks, each block a layer.
${groupsText(variant)}
void compute(int row, int tile) {
  Group group = groupAt(firstGroup + row);
  int head = group.head;
  int firstBlock = tile * ${blocks};
  int competing = competingBlocks(head, group.block);
  // Nobody reads the tiles of blocks that do not compete.
  if (firstBlock >= competing) {
    discard;
  }
  ivec4 queries = group.queries;
  int end = ${padded ? 'keyEnd(head)' : 'keyLength'};
${writeSummaryScores(headDim, blocks)}
  ivec2 mask = keptAt(head * queryBlocks + group.block);
  vec4 kept;
  ${each(
    blocks / 4,
    (i) => `kept = fetchKept(mask, tile * ${blocks / 4} + ${i}, 0);
  ${each(4, (c) => `result${4 * i + c} = kept[${c}] != 0.0 ? vec4(${maskedScore}) : result${4 * i + c};`, '\n  ')}`,
    '\n  ',
  )}
}`;
  }
}

/** Maximum (layer 0) and sum (layer 1) of each row. */
export class RemainderStatisticsProgram extends AttentionProgram<RemainderVariant> {
  constructor(walk: AttendWalk, scores: RowTexture) {
    super({
      inputs: {scores, ...paddingInput(walk)},
      uniforms: remainderUniforms(walk),
      output: {rows: scores.rows, columns: 4},
      layers: 2,
      variant: remainderVariant(walk),
      fetches: scores.texels * scores.layers,
    });
  }

  protected shader(variant: RemainderVariant): string {
    const {blocks} = variant;
    return `
// A fragment walks over the scores of a group's four rows, a component each.
${groupsText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  int competing = competingBlocks(group.head, group.block);
  vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);
  ivec2 at = scoresAt(row);
  for (int tile = 0; tile * ${blocks} < competing; tile++) {
    ${takeTile(blocks, 'tile')}
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/** Weighted sums of mean values, in the layout of `AttendValuesProgram`. */
export class RemainderValuesProgram extends AttentionProgram<RemainderVariant> {
  constructor(walk: AttendWalk, scores: RowTexture, statistics: RowTexture, valueMeans: RowTexture) {
    const {geometry, tileKeys} = walk;
    super({
      inputs: {scores, statistics, valueMeans, ...paddingInput(walk)},
      uniforms: remainderUniforms(walk),
      output: {rows: scores.rows, columns: 4 * valueTexels(geometry.valueDim, tileKeys)},
      layers: tileKeys,
      variant: remainderVariant(walk),
      fetches: geometry.keyBlocks * (1 + tileKeys / 4),
    });
  }

  protected shader(variant: RemainderVariant): string {
    const {blocks} = variant;
    const vectors = blocks / 4;
    return `
// A fragment adds up ${vectors} vectors of the mean values, weighted for each of a group's four rows.
${groupsText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  int competing = competingBlocks(group.head, group.block);
  vec4 rowMax = readStatistics(row, 0);
  ${each(blocks, (layer) => `vec4 sum${layer} = vec4(0.0);`, '\n  ')}
  ivec2 at = scoresAt(row);
  for (int block = 0; block < competing; block++) {
    vec4 weights = exp2(fetchScores(at, block / ${blocks}, block % ${blocks}) - rowMax);
    ivec2 means = valueMeansAt(group.head * blocks + block);
    vec4 x;
    ${each(
      vectors,
      (i) => `x = fetchValueMeans(means, ${vectors} * texel + ${i}, 0);
    ${each(groupRows, (q) => `sum${q * vectors + i} += weights[${q}] * x;`)}`,
    )}
  }
  ${each(blocks, (layer) => `result${layer} = sum${layer};`, '\n  ')}
}`;
  }
}
