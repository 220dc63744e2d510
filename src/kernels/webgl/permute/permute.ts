import type {PlanRule} from '../../../attention/attention_call.js';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {KeyOrder} from '../../../attention/stage_set.js';
import {keyEndText, keyEndUniforms, keyLengthsInput, proxyRangeText, proxyRangeUniforms} from '../glsl/key_lengths.js';
import {
  headUniforms,
  keyBase,
  keysOfTile,
  logitScale,
  maskedScore,
  noMaximum,
  orNone,
  takeTile,
  visibleScores,
  writeScores,
} from '../glsl/score_tile.js';
import {groupRows} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import {headRanges} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {RowSplit} from '../runtime/tensor_rows.js';
import type {WebGLCall} from '../webgl_call.js';
import type {HeadWalk} from './segment_key_scores.js';
import {segmentKeyScores} from './segment_key_scores.js';
import {RankKeysProgram, SortKeysProgram} from './sort_keys.js';

/** How `[batch, heads, permutedLength]` lies in the rows of `keyScores`. */
export const keyScoreSplit = ({permutedLength, segmentSize}: BlockGeometry): RowSplit => ({
  inner: permutedLength,
  piece: segmentSize,
});

/** Keys whose scores with the proxy rows stand in one row, and whose statistics one fragment collects. */
const keysPerChunk = 512;

/**
 * Stage 1, permute: scores the keys of the complete segments and sorts each segment by descending score, equal scores by index.
 * By the sampled estimate what counts is the attention of the first rows behind a segment (`segment_key_scores.ts`).
 *
 * By the pooled one it is the mean attention of the last query rows, without a causal mask (paper section 3.2). Keys that are
 * padding score 0, so that they stand last; a batch entry without proxy rows or without keys keeps its order. `causal` counts
 * with key lengths alone then: it says which rows are padding.
 */
export function permute(
  call: WebGLCall,
  {permute: sort, estimate}: Pick<PlanRule, 'permute' | 'estimate'>,
): KeyOrder<RowTexture> {
  const {context} = call;
  if (!sort) {
    return {keyIndices: new SortKeysProgram(call).run(context)};
  }
  return withScratch(context, (scratch, keep) => {
    const keyScores = keep(estimate === 'sampled' ? segmentKeyScores(call) : proxyKeyScores(call));
    const ranks = scratch(new RankKeysProgram(keyScores).run(context));
    return {keyScores, keyIndices: new SortKeysProgram(call, ranks).run(context)};
  });
}

/**
 * The scores of the proxy rows are drawn once and read twice: for maximum and sum of each row over chunks of keys,
 * combined to one logarithm a row, then for the weights themselves, added up by key.
 */
function proxyKeyScores(call: WebGLCall): RowTexture {
  const {context, geometry} = call;
  const {permutedLength, segmentSize} = geometry;
  const segments = permutedLength / segmentSize;
  // More heads than fit the scratch texture are done after one another.
  const headTexels = proxyGroups(geometry) * keyChunks(geometry) * keysPerChunk;
  return withScratch(context, (_, keep) => {
    let keyScores: RowTexture | undefined;
    for (const {firstHead, heads} of headRanges(geometry, context.scratchTexels / headTexels)) {
      const walk: HeadWalk = {call, firstHead, heads};
      withScratch(context, (scratch) => {
        const scores = scratch(new ProxyScoresProgram(walk).run(context));
        const statistics = scratch(new ProxyStatisticsProgram(scores).run(context));
        const rowLogSums = scratch(new ProxyLogSumsProgram(walk, statistics).run(context));
        const program = new KeyScoresProgram(walk, scores, rowLogSums);
        keyScores = program.drawInto(context, keyScores, keep, firstHead * segments, (firstHead + heads) * segments);
      });
    }
    return keyScores!;
  });
}

const proxyGroups = ({proxyRows}: BlockGeometry) => Math.ceil(proxyRows / groupRows);
const keyChunks = ({permutedLength}: BlockGeometry) => Math.ceil(permutedLength / keysPerChunk);

/** Uniforms of programs whose rows are `[heads, chunks, groups]`. */
function proxyUniforms({geometry, causal, keyLengths}: WebGLCall): Uniforms {
  return {
    ...(keyLengths && {...keyEndUniforms(geometry), ...proxyRangeUniforms(geometry, causal)}),
    groups: proxyGroups(geometry),
    chunks: keyChunks(geometry),
    proxyRows: geometry.proxyRows,
  };
}

/** Shader text of programs that look at padding. */
const paddingText = (padded: boolean) => (padded ? `${keyEndText}${proxyRangeText}` : '');

interface ProxyScoresVariant {
  headDim: number;
  keys: number;
  padded: boolean;
}

/** Scores of the proxy rows. Rows `[heads, chunks, groups]`; texel t, layer i: key i of tile t of the chunk. */
export class ProxyScoresProgram extends AttentionProgram<ProxyScoresVariant> {
  constructor({call, firstHead, heads}: HeadWalk) {
    const {query, key, geometry, scale, keyLengths} = call;
    const {queryLength, headDim, permutedLength} = geometry;
    const keys = call.context.drawBuffers;
    super({
      name: 'ProxyScores',
      inputs: {query, key, ...keyLengthsInput(call)},
      uniforms: {...headUniforms(geometry), queryLength, ...proxyUniforms(call), firstHead, permutedLength},
      floats: logitScale(scale),
      output: {rows: heads * keyChunks(geometry) * proxyGroups(geometry), columns: (4 * keysPerChunk) / keys},
      layers: keys,
      variant: {headDim, keys, padded: keyLengths !== undefined},
      fetches: (4 + keys) * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, keys, padded}: ProxyScoresVariant): string {
    const first = padded ? 'range.x' : 'queryLength - proxyRows';
    const end = padded ? 'min(permutedLength, keyEnd(head))' : 'permutedLength';
    return `
// A fragment computes the scores of four proxy rows and one tile of ${keys} keys.
${keyBase}${paddingText(padded)}
${orNone}
${visibleScores(false)}
void compute(int row, int texel) {
  int head = firstHead + row / (groups * chunks);
  ${padded ? 'ivec2 range = proxyRange(head);\n  ' : ''}ivec4 queries = ivec4(0, 1, 2, 3) * groups + ${first} + row % groups;${
    padded
      ? `
  // Padding is not looked at, for it may hold what is no number.
  queries = min(queries, max(range.y, 1) - 1);`
      : ''
  }
  int tile = ((row / groups) % chunks) * ${keysPerChunk} + texel;
  int firstKey = keyBase(head);
  ${keysOfTile(keys, 'tile', String(keysPerChunk / keys), end)}
${writeScores(headDim, keys)}
}`;
  }
}

/** Maximum (layer 0) and sum of exp2(score − maximum) (layer 1) of four proxy rows over a chunk of keys. */
export class ProxyStatisticsProgram extends AttentionProgram<{keys: number}> {
  constructor(scores: RowTexture) {
    super({
      name: 'ProxyStatistics',
      inputs: {scores},
      output: {rows: scores.rows, columns: 4},
      layers: 2,
      variant: {keys: scores.layers},
      fetches: keysPerChunk,
    });
  }

  protected shader({keys}: {keys: number}): string {
    return `
// A fragment walks over a row of scores.
void compute(int row, int texel) {
  ivec2 at = scoresAt(row);
  vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);
  for (int t = 0; t < ${keysPerChunk / keys}; t++) {
    ${takeTile(keys, 't')}
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/** log2 of the sum of exp2(score) over all keys, of four proxy rows. Rows `[heads, groups]`. */
export class ProxyLogSumsProgram extends AttentionProgram<{padded: boolean}> {
  constructor({call, firstHead, heads}: HeadWalk, statistics: RowTexture) {
    const {geometry, keyLengths} = call;
    super({
      name: 'ProxyLogSums',
      inputs: {statistics, ...keyLengthsInput(call)},
      uniforms: {...proxyUniforms(call), ...(keyLengths && {firstHead})},
      output: {rows: heads * proxyGroups(geometry), columns: 4},
      variant: {padded: keyLengths !== undefined},
      fetches: 3 * keyChunks(geometry),
    });
  }

  protected shader({padded}: {padded: boolean}): string {
    const rows = padded ? 'range.y - range.x' : 'proxyRows';
    return `
// A fragment combines the chunks of four rows. Rows that do not exist get a sum so large that their weights are 0.${paddingText(padded)}
void compute(int row, int texel) {
  int first = (row / groups) * chunks * groups + row % groups;
  vec4 rowMax = vec4(${noMaximum});
  for (int chunk = 0; chunk < chunks; chunk++) {
    rowMax = max(rowMax, readStatistics(first + chunk * groups, 0));
  }
  vec4 sum = vec4(0.0);
  for (int chunk = 0; chunk < chunks; chunk++) {
    ivec2 at = statisticsAt(first + chunk * groups);
    sum += fetchStatistics(at, 0, 1) * exp2(fetchStatistics(at, 0, 0) - rowMax);
  }
  ${padded ? 'ivec2 range = proxyRange(firstHead + row / groups);\n  ' : ''}bvec4 exists = lessThan(ivec4(0, 1, 2, 3) * groups + row % groups, ivec4(${rows}));
  result0 = mix(vec4(-(${maskedScore})), rowMax + log2(sum), exists);
}`;
  }
}

/** Mean weight of each key over the proxy rows: `keyScores`. */
export class KeyScoresProgram extends AttentionProgram<{keys: number; padded: boolean}> {
  constructor({call, firstHead}: HeadWalk, scores: RowTexture, rowLogSums: RowTexture) {
    const {geometry, keyLengths} = call;
    const {batch, heads, permutedLength, segmentSize} = geometry;
    super({
      name: 'KeyScores',
      inputs: {scores, rowLogSums, ...keyLengthsInput(call)},
      uniforms: {...proxyUniforms(call), firstHead, segments: permutedLength / segmentSize, segmentSize},
      output: {rows: (batch * heads * permutedLength) / segmentSize, columns: segmentSize},
      variant: {keys: scores.layers, padded: keyLengths !== undefined},
      fetches: 5 * proxyGroups(geometry),
    });
  }

  protected shader({keys, padded}: {keys: number; padded: boolean}): string {
    return `
// A fragment adds up the weights of four keys over all proxy rows.${paddingText(padded)}
void compute(int row, int texel) {
  int head = row / segments - firstHead;
  vec4 sums = vec4(0.0);
  for (int group = 0; group < groups; group++) {
    vec4 logSums = readRowLogSums(head * groups + group, 0);
    for (int c = 0; c < 4; c++) {
      int key = (row % segments) * segmentSize + 4 * texel + c;
      int place = key % ${keysPerChunk};
      ivec2 at = scoresAt((head * chunks + key / ${keysPerChunk}) * groups + group);
      vec4 weights = exp2(fetchScores(at, place % ${keysPerChunk / keys}, place / ${keysPerChunk / keys}) - logSums);
      sums[c] += dot(weights, vec4(1.0));
    }
  }
  ${
    padded
      ? `ivec2 range = proxyRange(firstHead + head);
  result0 = range.x < range.y ? sums / float(range.y - range.x) : vec4(0.0);`
      : 'result0 = sums / float(proxyRows);'
  }
}`;
  }
}
