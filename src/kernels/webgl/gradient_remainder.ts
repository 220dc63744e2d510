import type {BlockGeometry} from '../block_geometry.js';
import type {Take} from '../scratch.js';
import type {GradientRows} from './attend_gradients.js';
import type {SkippedBlocks} from './attend_remainder.js';
import type {AttentionContext} from './context.js';
import {keyEndText} from './key_lengths.js';
import type {Uniforms} from './program.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {competingBlocks, competingUniforms} from './score_blocks.js';
import {headUniforms, keyBase} from './score_tile.js';
import {summaryUniforms} from './summary_score.js';

/** Rows `[batch * heads * queryLength]`, and, in the order of the plan, `[batch * heads * keyLength]`. */
export type HeadGradients = Record<'query' | 'key' | 'value', RowTexture>;

const vectorsOf = (dim: number) => Math.ceil(dim / 4);

/**
 * Gradients of the blocks that are skipped, where these count by their summaries (`block_estimate.ts`), added to those of the
 * blocks that are kept; the sums are handed to `scratch`. To a query row such a block is a key with a value, whose score has a
 * part of the mean key and one of the variance, the latter constant where it is capped.
 *
 * By ranges of query rows: what each block is to each row is drawn once; then the rows sum it up over the blocks, and the
 * blocks over the rows. At last what a block's mean and variance would have to change by goes to its n keys:
 * d key = (d mean + 2 · d variance · (key − mean)) / n, d value = d mean / n.
 */
export function addRemainderGradients(
  context: AttentionContext,
  gradients: HeadGradients,
  rows: GradientRows,
  statistics: RowTexture,
  skipped: SkippedBlocks,
  keyIndices: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  scratch: Take<RowTexture>,
  keyLengths?: RowTexture,
): HeadGradients {
  const {batch, heads, queryLength, keyBlocks} = geometry;
  const rowsAtOnce = Math.max(1, Math.floor(context.scratchTexels / keyBlocks));
  const allRows = batch * heads * queryLength;
  const sums: RowTexture[] = [];
  let query: RowTexture | undefined;
  let ranges = 0;
  for (let first = 0; first < allRows; first += rowsAtOnce, ++ranges) {
    const range: RowRange = {first, end: Math.min(first + rowsAtOnce, allRows)};
    withScratch(context, (rangeScratch) => {
      const weightsPass = new SkippedWeightsProgram(
        range,
        rows,
        statistics,
        skipped,
        geometry,
        scale,
        causal,
        keyLengths,
      );
      const weights = rangeScratch(weightsPass.run(context));
      const queryPass = new SkippedQueryProgram(range, gradients.query, weights, rows.query, skipped, geometry, scale);
      query ??= scratch(queryPass.allocate(context));
      queryPass.draw(context, query, range.first, range.end);
      const before = sums[(ranges + 1) % 2] as RowTexture | undefined;
      const keyPass = new SkippedKeyProgram(range, weights, rows, geometry, before);
      sums[ranges % 2] ??= scratch(keyPass.allocate(context));
      keyPass.draw(context, sums[ranges % 2]);
      context.gl.flush();
    });
  }
  const spread = (of: 'key' | 'value') =>
    scratch(
      new SpreadOverKeysProgram(
        of,
        gradients[of],
        sums[(ranges - 1) % 2],
        rows.key,
        skipped,
        keyIndices,
        geometry,
        scale,
        context.drawBuffers,
        keyLengths,
      ).run(context),
    );
  return {query: query!, key: spread('key'), value: spread('value')};
}

/** Query rows `[first, end)` of `[batch * heads * queryLength]`. */
interface RowRange {
  first: number;
  end: number;
}

const rowUniforms = ({queryLength, blockSize, keyBlocks}: BlockGeometry, {first, end}: RowRange): Uniforms => ({
  queryLength: {type: 'int', value: queryLength},
  blockSize: {type: 'int', value: blockSize},
  blocks: {type: 'int', value: keyBlocks},
  rangeFirst: {type: 'int', value: first},
  rangeEnd: {type: 'int', value: end},
});

interface WeightsVariant {
  headDim: number;
  valueDim: number;
  causal: boolean;
  padded: boolean;
}

/**
 * A row a query row of the range; texel t: what key block t is to it: its weight, the gradient by its score, the same by the
 * part of the variance, and whether it is skipped at all; zeros if not.
 */
export class SkippedWeightsProgram extends AttentionProgram<WeightsVariant> {
  constructor(
    range: RowRange,
    {query, dy}: Pick<GradientRows, 'query' | 'dy'>,
    statistics: RowTexture,
    {summaries, valueMeans, kept}: SkippedBlocks,
    geometry: BlockGeometry,
    scale: number,
    causal: boolean,
    keyLengths?: RowTexture,
  ) {
    const {headDim, valueDim, keyBlocks} = geometry;
    const padded = keyLengths !== undefined;
    super({
      inputs: {query, dy, statistics, summaries, valueMeans, kept, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        ...competingUniforms(geometry, causal, padded),
        ...summaryUniforms(geometry, scale),
        ...rowUniforms(geometry, range),
        queryBlocks: {type: 'int', value: geometry.queryBlocks},
      },
      output: {rows: range.end - range.first, columns: 4 * keyBlocks},
      variant: {headDim, valueDim, causal, padded},
      fetches: 3 * vectorsOf(headDim) + 2 * vectorsOf(valueDim) + 2,
    });
  }

  protected shader({headDim, valueDim, causal, padded}: WeightsVariant): string {
    return `
// A fragment takes a query row and a key block.
${competingBlocks(causal, padded)}
void compute(int row, int keyBlock) {
  int queryRow = rangeFirst + row;
  int head = divide(queryRow, queryLength);
  int queryBlock = divide(queryRow - head * queryLength, blockSize);
  result0 = vec4(0.0);
  if (keyBlock >= competingBlocks(head, queryBlock)
    || readKept(head * queryBlocks + queryBlock, keyBlock / 4)[keyBlock % 4] != 0.0) {
    return;
  }
  ivec2 ownQuery = queryAt(queryRow);
  ivec2 ownDy = dyAt(queryRow);
  ivec2 summary = summariesAt(head * blocks + keyBlock);
  ivec2 values = valueMeansAt(head * blocks + keyBlock);
  float byMean = 0.0;
  float byVariance = 0.0;
  for (int v = 0; v < ${vectorsOf(headDim)}; v++) {
    vec4 q = fetchQuery(ownQuery, v, 0);
    byMean += dot(q, fetchSummaries(summary, v, 0));
    byVariance += dot(q * q, fetchSummaries(summary, v, 1));
  }
  float product = 0.0;
  for (int v = 0; v < ${vectorsOf(valueDim)}; v++) {
    product += dot(fetchDy(ownDy, v, 0), fetchValueMeans(values, v, 0));
  }
  vec4 known = readStatistics(queryRow, 0);
  float correction = varianceScale * byVariance;
  int count = min(${padded ? 'keyEnd(head)' : 'keyLength'} - keyBlock * blockSize, blockSize);
  float weight = exp2(logitScale * byMean + min(correction, varianceCap) + log2(float(count)) - known.x);
  float score = weight * (product - known.y);
  result0 = vec4(weight, score, correction < varianceCap ? score : 0.0, 1.0);
}`;
  }
}

/** The gradient by the query rows of a range, of kept and of skipped blocks. */
export class SkippedQueryProgram extends AttentionProgram<object> {
  constructor(
    range: RowRange,
    gradient: RowTexture,
    weights: RowTexture,
    query: RowTexture,
    {summaries}: SkippedBlocks,
    geometry: BlockGeometry,
    scale: number,
  ) {
    super({
      inputs: {gradient, weights, query, summaries},
      uniforms: {...rowUniforms(geometry, range), scale: {type: 'float', value: scale}},
      output: {rows: gradient.rows, columns: gradient.columns},
      variant: {},
      fetches: 3 * geometry.keyBlocks + 2,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up one vector over the blocks that its row skips.
void compute(int row, int texel) {
  int firstBlock = divide(row, queryLength) * blocks;
  ivec2 at = weightsAt(row - rangeFirst);
  vec4 q = scale * readQuery(row, texel);
  vec4 sum = vec4(0.0);
  for (int block = 0; block < blocks; block++) {
    vec4 x = fetchWeights(at, block, 0);
    if (x.w != 0.0) {
      ivec2 summary = summariesAt(firstBlock + block);
      sum += x.y * fetchSummaries(summary, texel, 0) + x.z * q * fetchSummaries(summary, texel, 1);
    }
  }
  result0 = readGradient(row, texel) + scale * sum;
}`;
  }
}

interface SumsVariant {
  headDim: number;
  firstRange: boolean;
}

/**
 * Sums up to and with a range of query rows, a row a key block and head: of queries by the gradients of scores, of their
 * squares by those of the variance, of dy by the weights; each in whole vectors.
 */
export class SkippedKeyProgram extends AttentionProgram<SumsVariant> {
  constructor(
    range: RowRange,
    weights: RowTexture,
    {query, dy}: Pick<GradientRows, 'query' | 'dy'>,
    geometry: BlockGeometry,
    before?: RowTexture,
  ) {
    const {batch, heads, queryLength, keyBlocks, headDim, valueDim} = geometry;
    super({
      inputs: {weights, query, dy, ...(before && {before})},
      uniforms: rowUniforms(geometry, range),
      output: {rows: batch * heads * keyBlocks, columns: 4 * (2 * vectorsOf(headDim) + vectorsOf(valueDim))},
      variant: {headDim, firstRange: before === undefined},
      fetches: 2 * Math.min(queryLength, range.end - range.first) + 1,
    });
  }

  protected shader({headDim, firstRange}: SumsVariant): string {
    const vectors = vectorsOf(headDim);
    return `
// A fragment adds up one vector over the rows of the range and its head.
void compute(int row, int texel) {
  int head = divide(row, blocks);
  int keyBlock = row - head * blocks;
  vec4 sum = ${firstRange ? 'vec4(0.0)' : 'readBefore(row, texel)'};
  int end = min(rangeEnd, (head + 1) * queryLength);
  for (int queryRow = max(rangeFirst, head * queryLength); queryRow < end; queryRow++) {
    vec4 x = readWeights(queryRow - rangeFirst, keyBlock);
    if (x.w == 0.0) {
      continue;
    }
    if (texel < ${vectors}) {
      sum += x.y * readQuery(queryRow, texel);
    } else if (texel < ${2 * vectors}) {
      vec4 q = readQuery(queryRow, texel - ${vectors});
      sum += x.z * q * q;
    } else {
      sum += x.x * readDy(queryRow, texel - ${2 * vectors});
    }
  }
  result0 = sum;
}`;
  }
}

interface SpreadVariant {
  of: 'key' | 'value';
  headDim: number;
  tileKeys: number;
  padded: boolean;
}

/** The gradient by keys or values in the order of the plan, with what each owes to the summary of its block added. */
export class SpreadOverKeysProgram extends AttentionProgram<SpreadVariant> {
  constructor(
    of: 'key' | 'value',
    gradient: RowTexture,
    sums: RowTexture,
    key: RowTexture,
    {summaries}: SkippedBlocks,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    scale: number,
    tileKeys: number,
    keyLengths?: RowTexture,
  ) {
    const {headDim, blockSize, keyBlocks} = geometry;
    super({
      inputs: {gradient, sums, keyIndices, ...(of === 'key' && {key, summaries}), ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
        tilesPerBlock: {type: 'int', value: Math.ceil(blockSize / tileKeys)},
        ...(of === 'key' && {scale: {type: 'float', value: scale}}),
      },
      output: {rows: gradient.rows, columns: gradient.columns},
      variant: {of, headDim, tileKeys, padded: keyLengths !== undefined},
      fetches: 6,
    });
  }

  protected shader({of, headDim, tileKeys, padded}: SpreadVariant): string {
    const vectors = vectorsOf(headDim);
    return `
// A fragment takes one vector of a key's row. Indices stand in the order of tiles.
${of === 'key' ? keyBase : ''}${padded ? keyEndText : ''}
void compute(int row, int texel) {
  int head = divide(row, keyLength);
  int position = row - head * keyLength;
  int keyBlock = divide(position, blockSize);
  int inBlock = position - keyBlock * blockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * ${tileKeys} + key;
  int block = head * blocks + keyBlock;
  int index = int(readKeyIndices(block, column / 4)[column % 4]);
  result0 = readGradient(row, texel);
  int end = ${padded ? 'keyEnd(head)' : 'keyLength'};
  if (index < end) {
    float count = float(min(end - keyBlock * blockSize, blockSize));
    ${
      of === 'key'
        ? `vec4 fromMean = readKey(keyBase(head) + index, texel) - readSummaries(block, texel);
    // The variance has half of scale² in a score, and twice the distance from the mean in a key.
    result0 += scale * (readSums(block, texel) + scale * fromMean * readSums(block, ${vectors} + texel)) / count;`
        : `result0 += readSums(block, ${2 * vectors} + texel) / count;`
    }
  }
}`;
  }
}
