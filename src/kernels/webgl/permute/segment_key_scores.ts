import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import {orderRows} from '../../../attention/sampled_estimate.js';
import type {AttentionContext} from '../runtime/context.js';
import {keyEndText} from '../glsl/key_lengths.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {
  groupRows,
  headUniforms,
  keyBase,
  keysOfTile,
  maskedScore,
  noMaximum,
  orNone,
  takeTile,
  visibleScores,
  writeScores,
} from '../glsl/score_tile.js';

/** Groups of four rows that order the keys of a segment. */
const groups = orderRows / groupRows;

/**
 * Part of stage 1, permute, by the sampled estimate: rows of `segmentSize` values, one row a segment and head: the mean
 * attention that the first rows behind a segment pay to its keys, by a softmax over the keys of the segment
 * (`sampled_estimate.ts`). Padding scores 0, and so does every key of a segment that has no row behind it.
 *
 * The scores are drawn once and read twice: for one logarithm a row, then for the weights themselves, added up by key.
 */
export function segmentKeyScores(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  keyLengths?: RowTexture,
): RowTexture {
  const {batch, heads, permutedLength, segmentSize} = geometry;
  const {drawBuffers, scratchTexels} = context;
  const segments = permutedLength / segmentSize;
  // More heads than fit the scratch texture are done after one another.
  const headTexels = segments * groups * tilesPerSegment(geometry, drawBuffers) * drawBuffers;
  const headsAtOnce = Math.max(1, Math.floor(scratchTexels / headTexels));
  return withScratch(context, (_, keep) => {
    let keyScores: RowTexture | undefined;
    for (let firstHead = 0; firstHead < batch * heads; firstHead += headsAtOnce) {
      const walkHeads = Math.min(headsAtOnce, batch * heads - firstHead);
      const walk: SegmentWalk = {geometry, causal, firstHead, heads: walkHeads, tileKeys: drawBuffers, keyLengths};
      withScratch(context, (scratch) => {
        const scores = scratch(new SegmentScoresProgram(walk, query, key, scale).run(context));
        const rowLogSums = scratch(new SegmentLogSumsProgram(walk, scores).run(context));
        const program = new SegmentKeyScoresProgram(walk, scores, rowLogSums);
        keyScores ??= keep(program.allocate(context));
        program.draw(context, keyScores, firstHead * segments, (firstHead + walkHeads) * segments);
      });
    }
    return keyScores!;
  });
}

/** Heads `[firstHead, firstHead + heads)` of `[batch * heads]`, whose segments are worked on at a time. */
export interface SegmentWalk {
  geometry: BlockGeometry;
  causal: boolean;
  firstHead: number;
  heads: number;
  /** Keys of a tile: as many as there are draw buffers. */
  tileKeys: number;
  /** As `loadKeyLengths` gives them. */
  keyLengths?: RowTexture;
}

const tilesPerSegment = ({segmentSize}: BlockGeometry, tileKeys: number) => Math.ceil(segmentSize / tileKeys);

interface SegmentVariant {
  causal: boolean;
  padded: boolean;
  tileKeys: number;
}

const segmentVariant = ({causal, keyLengths, tileKeys}: SegmentWalk): SegmentVariant => ({
  causal,
  padded: keyLengths !== undefined,
  tileKeys,
});

const paddingInput = ({keyLengths}: SegmentWalk) => keyLengths && {keyLengths};

function segmentUniforms({geometry, causal, firstHead, tileKeys, keyLengths}: SegmentWalk): Uniforms {
  const {queryLength, queryOffset, permutedLength, segmentSize} = geometry;
  return {
    ...headUniforms(geometry),
    queryLength: {type: 'int', value: queryLength},
    firstHead: {type: 'int', value: firstHead},
    segments: {type: 'int', value: permutedLength / segmentSize},
    segmentSize: {type: 'int', value: segmentSize},
    tiles: {type: 'int', value: tilesPerSegment(geometry, tileKeys)},
    firstPosition: {type: 'int', value: causal ? queryOffset : 0},
    ...(keyLengths && {hasPositions: {type: 'int', value: rowsHavePositions(geometry, causal) ? 1 : 0}}),
  };
}

/** Shader text: `orderRange(head, segment)`, first and end of the rows that order its keys, as `orderRowRange` has them. */
const orderRange = ({causal, padded}: SegmentVariant) => `${padded ? keyEndText : ''}
ivec2 orderRange(int head, int segment) {
  int last = ${padded ? 'hasPositions == 1 ? clamp(keyEnd(head) - firstPosition, 0, queryLength) : queryLength' : 'queryLength'};
  int first = max(${causal ? '(segment + 1) * segmentSize - firstPosition' : `last - ${orderRows}`}, 0);
  return min(ivec2(first, first + ${orderRows}), last);
}`;

/** Shader text for the body of `compute`: the segment of a row of `[heads, segments]` and its rows. */
const segmentOfRow = (row: string) => `int headInRange = divide(${row}, segments);
  int head = firstHead + headInRange;
  int segment = ${row} - headInRange * segments;
  ivec2 range = orderRange(head, segment);`;

/** Scores with the rows that order a segment. Rows `[heads, segments, groups]`; texel t, layer i: key i of tile t. */
export class SegmentScoresProgram extends AttentionProgram<SegmentVariant & {headDim: number}> {
  constructor(walk: SegmentWalk, query: RowTexture, key: RowTexture, scale: number) {
    const {geometry, heads, tileKeys} = walk;
    const {headDim, permutedLength, segmentSize} = geometry;
    super({
      name: 'SegmentScores',
      inputs: {query, key, ...paddingInput(walk)},
      uniforms: {...segmentUniforms(walk), logitScale: {type: 'float', value: scale * Math.LOG2E}},
      output: {
        rows: (heads * permutedLength * groups) / segmentSize,
        columns: 4 * tilesPerSegment(geometry, tileKeys),
      },
      layers: tileKeys,
      variant: {...segmentVariant(walk), headDim},
      fetches: (groupRows + tileKeys) * Math.ceil(headDim / 4),
    });
  }

  protected shader(variant: SegmentVariant & {headDim: number}): string {
    const {padded, tileKeys, headDim} = variant;
    const end = '(segment + 1) * segmentSize';
    return `
// A fragment computes the scores of four rows and one tile of ${tileKeys} keys.
${keyBase}${orderRange(variant)}
${orNone}
${visibleScores(false)}
void compute(int row, int tile) {
  int segmentRow = divide(row, ${groups});
  ${segmentOfRow('segmentRow')}
  // Nobody reads the scores of a segment that has no rows behind it.
  if (range.x >= range.y) {
    discard;
  }
  // Padding is not looked at, for it may hold what is no number.
  ivec4 queries = min(range.x + ivec4(0, 1, 2, 3) * ${groups} + row - segmentRow * ${groups}, range.y - 1);
  int firstKey = keyBase(head);
  ${keysOfTile(tileKeys, 'segment * segmentSize + tile', 'tiles', padded ? `min(${end}, keyEnd(head))` : end)}
${writeScores(headDim, tileKeys)}
}`;
  }
}

/** log2 of the sum of exp2(score) over the keys of a segment, of four rows. Rows `[heads, segments, groups]`. */
export class SegmentLogSumsProgram extends AttentionProgram<SegmentVariant> {
  constructor(walk: SegmentWalk, scores: RowTexture) {
    super({
      name: 'SegmentLogSums',
      inputs: {scores, ...paddingInput(walk)},
      uniforms: segmentUniforms(walk),
      output: {rows: scores.rows, columns: 4},
      variant: segmentVariant(walk),
      fetches: scores.texels * scores.layers,
    });
  }

  protected shader(variant: SegmentVariant): string {
    return `
// A fragment walks over a row of scores. Rows that do not exist, or see nothing, get a sum so large that their weights are 0.
${orderRange(variant)}
void compute(int row, int texel) {
  int segmentRow = divide(row, ${groups});
  ${segmentOfRow('segmentRow')}
  if (range.x >= range.y) {
    discard;
  }
  ivec2 at = scoresAt(row);
  vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);
  for (int tile = 0; tile < tiles; tile++) {
    ${takeTile(variant.tileKeys, 'tile')}
  }
  ivec4 rows = range.x + ivec4(0, 1, 2, 3) * ${groups} + row - segmentRow * ${groups};
  vec4 logSums = mix(vec4(-(${maskedScore})), rowMax + log2(rowSum), notEqual(rowSum, vec4(0.0)));
  result0 = mix(vec4(-(${maskedScore})), logSums, lessThan(rows, ivec4(range.y)));
}`;
  }
}

/** Mean weight of each key over the rows: `keyScores`. */
export class SegmentKeyScoresProgram extends AttentionProgram<SegmentVariant> {
  constructor(walk: SegmentWalk, scores: RowTexture, rowLogSums: RowTexture) {
    const {batch, heads, permutedLength, segmentSize} = walk.geometry;
    super({
      name: 'SegmentKeyScores',
      inputs: {scores, rowLogSums, ...paddingInput(walk)},
      uniforms: segmentUniforms(walk),
      output: {rows: (batch * heads * permutedLength) / segmentSize, columns: segmentSize},
      variant: segmentVariant(walk),
      fetches: 5 * groups,
    });
  }

  protected shader(variant: SegmentVariant): string {
    return `
// A fragment adds up the weights of four keys over all rows.
${orderRange(variant)}
void compute(int row, int texel) {
  int segmentRow = row - firstHead * segments;
  ${segmentOfRow('segmentRow')}
  if (range.x >= range.y) {
    result0 = vec4(0.0);
    return;
  }
  vec4 sums = vec4(0.0);
  for (int group = 0; group < ${groups}; group++) {
    vec4 logSums = readRowLogSums(segmentRow * ${groups} + group, 0);
    ivec2 at = scoresAt(segmentRow * ${groups} + group);
    for (int c = 0; c < 4; c++) {
      int key = min(4 * texel + c, segmentSize - 1);
      int layer = divide(key, tiles);
      sums[c] += dot(exp2(fetchScores(at, key - layer * tiles, layer) - logSums), vec4(1.0));
    }
  }
  result0 = sums / float(range.y - range.x);
}`;
  }
}
