import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {orderRows} from '../../../attention/sampled_estimate.js';
import {maskByKeyText} from '../glsl/attention_mask.js';
import {keyEndText, keyLengthsInput} from '../glsl/key_lengths.js';
import {logOfSums} from '../glsl/not_finite.js';
import type {ScoreForms} from '../glsl/score_forms.js';
import {formedScores, scoreForms, slopeOfHead} from '../glsl/score_forms.js';
import {keyBase, keysOfTile, maskedScore, noScores, scoreTexts, takeTile, writeScores} from '../glsl/score_tile.js';
import {groupRows} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';
import type {HeadWalk} from './head_walk.js';
import type {HeadScoresVariant} from './head_walk.js';
import {HeadScoresProgram, positionUniforms, scoreKeysByHeads} from './head_walk.js';

/** Groups of four rows that order the keys of a segment. */
const groups = orderRows / groupRows;

/**
 * Part of stage 1, permute, by the sampled estimate: the mean attention that the first rows behind a segment pay to its keys,
 * by a softmax over the keys of the segment (`sampled_estimate.ts`). Padding scores 0, and so does every key of a segment that
 * has no row behind it.
 *
 * The scores are drawn once and read twice: for one logarithm a row, then for the weights themselves, added up by key.
 */
export function segmentKeyScores(call: WebGLCall): RowTexture {
  const {context, geometry} = call;
  const {permutedLength, segmentSize} = geometry;
  const tileKeys = context.drawBuffers;
  const headTexels = (permutedLength / segmentSize) * groups * tilesPerSegment(geometry, tileKeys) * tileKeys;
  return scoreKeysByHeads(call, headTexels, (walk, scratch) => {
    const scores = scratch(new SegmentScoresProgram(walk).run(context));
    const rowLogSums = scratch(new SegmentLogSumsProgram(walk, scores).run(context));
    return new SegmentKeyScoresProgram(walk, scores, rowLogSums);
  });
}

const tilesPerSegment = ({segmentSize}: BlockGeometry, tileKeys: number) => Math.ceil(segmentSize / tileKeys);

function segmentUniforms({call: {geometry, causal, context}, firstHead}: HeadWalk): Uniforms {
  return {
    ...positionUniforms(geometry, causal),
    firstHead,
    segments: geometry.permutedLength / geometry.segmentSize,
    tiles: tilesPerSegment(geometry, context.drawBuffers),
  };
}

/** Shader text: `orderRange(head, segment)`, first and end of the rows that order its keys, as `orderRowRange` has them. */
const orderRange = ({causal, padded}: CallVariant) => `${padded ? keyEndText : ''}
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

/** A window says nothing of how keys of a segment compare for later rows. */
function orderForms(call: WebGLCall): ScoreForms | undefined {
  const {softCap, slopes} = scoreForms(call) ?? {};
  return softCap || slopes ? {softCap, slopes} : undefined;
}

/** Scores with the rows that order a segment. Rows `[heads, segments, groups]`; texel t, layer i: key i of tile t. */
export class SegmentScoresProgram extends HeadScoresProgram {
  constructor(walk: HeadWalk) {
    const {geometry, context} = walk.call;
    const rows = (walk.heads * geometry.permutedLength * groups) / geometry.segmentSize;
    const columns = 4 * tilesPerSegment(geometry, context.drawBuffers);
    const forms = {forms: orderForms(walk.call), mask: walk.call.mask};
    super('SegmentScores', walk, segmentUniforms(walk), {rows, columns}, forms);
  }

  protected shader(variant: HeadScoresVariant): string {
    const {padded, tileKeys, headDim, forms, mask} = variant;
    const end = '(segment + 1) * segmentSize';
    return `
// A fragment computes the scores of four rows and one tile of ${tileKeys} keys.
${keyBase}${orderRange(variant)}
${scoreTexts(false, formedScores(false, forms))}${mask ? maskByKeyText(mask, tileKeys) : ''}
void compute(int row, int tile) {
  int segmentRow = divide(row, ${groups});
  ${segmentOfRow('segmentRow')}
  // Nobody reads the scores of a segment that has no rows behind it.
  if (range.x >= range.y) {
    discard;
  }
  // Padding is not looked at, for it may hold what is no number.
  ivec4 queries = min(range.x + ivec4(0, 1, 2, 3) * ${groups} + row - segmentRow * ${groups}, range.y - 1);
  ${slopeOfHead(forms, 'head')}int firstKey = keyBase(head);
  ${keysOfTile(tileKeys, 'segment * segmentSize + tile', 'tiles', padded ? `min(${end}, keyEnd(head))` : end)}
${writeScores(headDim, tileKeys, {byKey: mask !== undefined})}
}`;
  }
}

/** log2 of the sum of exp2(score) over the keys of a segment, of four rows. Rows `[heads, segments, groups]`. */
export class SegmentLogSumsProgram extends AttentionProgram<CallVariant> {
  constructor(walk: HeadWalk, scores: RowTexture) {
    super({
      name: 'SegmentLogSums',
      inputs: {scores, ...keyLengthsInput(walk.call)},
      geometry: walk.call.geometry,
      uniforms: segmentUniforms(walk),
      output: {rows: scores.rows, columns: 4},
      variant: callVariant(walk.call),
      fetches: scores.texels * scores.layers,
    });
  }

  protected shader(variant: CallVariant): string {
    return `
// A fragment walks over a row of scores. Rows that do not exist, or see nothing, get a sum so large that their weights are 0.
${orderRange(variant)}${logOfSums}
void compute(int row, int texel) {
  int segmentRow = divide(row, ${groups});
  ${segmentOfRow('segmentRow')}
  if (range.x >= range.y) {
    discard;
  }
  ivec2 at = scoresAt(row);
  ${noScores}
  for (int tile = 0; tile < tiles; tile++) {
    ${takeTile(variant.tileKeys, 'tile')}
  }
  ivec4 rows = range.x + ivec4(0, 1, 2, 3) * ${groups} + row - segmentRow * ${groups};
  vec4 logSums = mix(vec4(-(${maskedScore})), rowMax + logOfSums(rowSum), notEqual(rowSum, vec4(0.0)));
  result0 = mix(vec4(-(${maskedScore})), logSums, lessThan(rows, ivec4(range.y)));
}`;
  }
}

/** Mean weight of each key over the rows: `keyScores`. */
export class SegmentKeyScoresProgram extends AttentionProgram<CallVariant> {
  constructor(walk: HeadWalk, scores: RowTexture, rowLogSums: RowTexture) {
    const {geometry} = walk.call;
    const {batch, heads, permutedLength, segmentSize} = geometry;
    super({
      name: 'SegmentKeyScores',
      inputs: {scores, rowLogSums, ...keyLengthsInput(walk.call)},
      geometry,
      uniforms: segmentUniforms(walk),
      output: {rows: (batch * heads * permutedLength) / segmentSize, columns: segmentSize},
      variant: callVariant(walk.call),
      fetches: 5 * groups,
    });
  }

  protected shader(variant: CallVariant): string {
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
