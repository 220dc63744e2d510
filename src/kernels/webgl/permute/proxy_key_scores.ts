import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {keyEndText, keyLengthsInput} from '../glsl/key_lengths.js';
import {logOfSums} from '../glsl/not_finite.js';
import {
  keyBase,
  keysOfTile,
  maskedScore,
  noMaximum,
  noScores,
  scoreTexts,
  takeTile,
  writeScores,
} from '../glsl/score_tile.js';
import {groupRows} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';
import type {HeadWalk} from './head_walk.js';
import {HeadScoresProgram, positionUniforms, scoreKeysByHeads} from './head_walk.js';

/** Keys whose scores with the proxy rows stand in one row, and whose statistics one fragment collects. */
const keysPerChunk = 512;

/**
 * Part of stage 1, permute, by the pooled estimate: the mean attention of the last query rows, the proxy rows, without a
 * causal mask (paper section 3.2). Keys that are padding score 0.
 *
 * The scores of the proxy rows are drawn once and read twice: for maximum and sum of each row over chunks of keys,
 * combined to one logarithm a row, then for the weights themselves, added up by key.
 */
export function proxyKeyScores(call: WebGLCall): RowTexture {
  const {context, geometry} = call;
  const headTexels = proxyGroups(geometry) * keyChunks(geometry) * keysPerChunk;
  return scoreKeysByHeads(call, headTexels, (walk, scratch) => {
    const scores = scratch(new ProxyScoresProgram(walk).run(context));
    const statistics = scratch(new ProxyStatisticsProgram(scores).run(context));
    const rowLogSums = scratch(new ProxyLogSumsProgram(walk, statistics).run(context));
    return new KeyScoresProgram(walk, scores, rowLogSums);
  });
}

const proxyGroups = ({proxyRows}: BlockGeometry) => Math.ceil(proxyRows / groupRows);
const keyChunks = ({permutedLength}: BlockGeometry) => Math.ceil(permutedLength / keysPerChunk);

/** Uniforms of programs whose rows are `[heads, chunks, groups]`. */
const proxyUniforms = ({call: {geometry, causal}, firstHead}: HeadWalk): Uniforms => ({
  ...positionUniforms(geometry, causal),
  groups: proxyGroups(geometry),
  chunks: keyChunks(geometry),
  firstHead,
});

/**
 * Shader text, where keys may be padding: `proxyRange(head)`, first and end of the proxy rows of a batch entry, as
 * `block_geometry.ts` has them; none where there are no keys either.
 */
const proxyRange = (padded: boolean) =>
  padded
    ? `${keyEndText}
ivec2 proxyRange(int head) {
  int end = keyEnd(head);
  if (hasPositions == 1) {
    end = clamp(end - firstPosition, 0, queryLength);
  } else if (end > 0) {
    end = queryLength;
  }
  return ivec2(max(end - proxyRows, 0), end);
}`
    : '';

/** Scores of the proxy rows. Rows `[heads, chunks, groups]`; texel t, layer i: key i of tile t of the chunk. */
export class ProxyScoresProgram extends HeadScoresProgram {
  constructor(walk: HeadWalk) {
    const {geometry, context} = walk.call;
    const rows = walk.heads * keyChunks(geometry) * proxyGroups(geometry);
    super('ProxyScores', walk, proxyUniforms(walk), {rows, columns: (4 * keysPerChunk) / context.drawBuffers});
  }

  protected shader({headDim, tileKeys, padded}: CallVariant & {headDim: number}): string {
    const first = padded ? 'range.x' : 'queryLength - proxyRows';
    const end = padded ? 'min(permutedLength, keyEnd(head))' : 'permutedLength';
    return `
// A fragment computes the scores of four proxy rows and one tile of ${tileKeys} keys.
${keyBase}${proxyRange(padded)}
${scoreTexts(false)}
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
  ${keysOfTile(tileKeys, 'tile', String(keysPerChunk / tileKeys), end)}
${writeScores(headDim, tileKeys)}
}`;
  }
}

/** Maximum (layer 0) and sum of exp2(score − maximum) (layer 1) of four proxy rows over a chunk of keys. */
export class ProxyStatisticsProgram extends AttentionProgram<{tileKeys: number}> {
  constructor(scores: RowTexture) {
    super({
      name: 'ProxyStatistics',
      inputs: {scores},
      output: {rows: scores.rows, columns: 4, layers: 2},
      variant: {tileKeys: scores.layers},
      fetches: keysPerChunk,
    });
  }

  protected shader({tileKeys}: {tileKeys: number}): string {
    return `
// A fragment walks over a row of scores.
void compute(int row, int texel) {
  ivec2 at = scoresAt(row);
  ${noScores}
  for (int t = 0; t < ${keysPerChunk / tileKeys}; t++) {
    ${takeTile(tileKeys, 't')}
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/** log2 of the sum of exp2(score) over all keys, of four proxy rows. Rows `[heads, groups]`. */
export class ProxyLogSumsProgram extends AttentionProgram<CallVariant> {
  constructor(walk: HeadWalk, statistics: RowTexture) {
    const {call, heads} = walk;
    const {geometry} = call;
    super({
      name: 'ProxyLogSums',
      inputs: {statistics, ...keyLengthsInput(call)},
      geometry,
      uniforms: proxyUniforms(walk),
      output: {rows: heads * proxyGroups(geometry), columns: 4},
      variant: callVariant(call),
      fetches: 3 * keyChunks(geometry),
    });
  }

  protected shader({padded}: CallVariant): string {
    const rows = padded ? 'range.y - range.x' : 'proxyRows';
    return `
// A fragment combines the chunks of four rows. Rows that do not exist get a sum so large that their weights are 0.${proxyRange(padded)}${logOfSums}
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
  result0 = mix(vec4(-(${maskedScore})), rowMax + logOfSums(sum), exists);
}`;
  }
}

/** Mean weight of each key over the proxy rows: `keyScores`. */
export class KeyScoresProgram extends AttentionProgram<CallVariant> {
  constructor(walk: HeadWalk, scores: RowTexture, rowLogSums: RowTexture) {
    const {call} = walk;
    const {geometry} = call;
    const {batch, heads, permutedLength, segmentSize} = geometry;
    super({
      name: 'KeyScores',
      inputs: {scores, rowLogSums, ...keyLengthsInput(call)},
      geometry,
      uniforms: {...proxyUniforms(walk), segments: permutedLength / segmentSize},
      output: {rows: (batch * heads * permutedLength) / segmentSize, columns: segmentSize},
      variant: callVariant(call),
      fetches: 5 * proxyGroups(geometry),
    });
  }

  protected shader({tileKeys, padded}: CallVariant): string {
    const tiles = keysPerChunk / tileKeys;
    return `
// A fragment adds up the weights of four keys over all proxy rows.${proxyRange(padded)}
void compute(int row, int texel) {
  int head = row / segments - firstHead;
  vec4 sums = vec4(0.0);
  for (int group = 0; group < groups; group++) {
    vec4 logSums = readRowLogSums(head * groups + group, 0);
    for (int c = 0; c < 4; c++) {
      int key = (row % segments) * segmentSize + 4 * texel + c;
      int place = key % ${keysPerChunk};
      ivec2 at = scoresAt((head * chunks + key / ${keysPerChunk}) * groups + group);
      vec4 weights = exp2(fetchScores(at, place % ${tiles}, place / ${tiles}) - logSums);
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
