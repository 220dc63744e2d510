import {keyIndexSplit} from '../glsl/tiles.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/** Place of each key in its sorted segment: the number of keys that come before it. Rows as in `keyScores`. */
export class RankKeysProgram extends AttentionProgram<object> {
  constructor(keyScores: RowTexture) {
    super({
      name: 'RankKeys',
      inputs: {keyScores},
      uniforms: {segmentSize: keyScores.columns},
      output: {rows: keyScores.rows, columns: keyScores.columns},
      variant: {},
      fetches: keyScores.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment compares its four keys with all keys of the segment: a total order without a sorting network, for segments of
// any size.
//
// Scores are compared by their bits: for floats that are not negative the order is the same, and it stays a total order
// when there are NaNs, which are all one here, so that the ranks are a permutation whatever the input, and the same everywhere.
uvec4 bitsOf(vec4 scores) {
  return min(floatBitsToUint(scores) & uvec4(0x7fffffffu), uvec4(0x7f800001u));
}
void compute(int row, int texel) {
  ivec2 at = keyScoresAt(row);
  uvec4 own = bitsOf(fetchKeyScores(at, texel, 0));
  ivec4 ownKeys = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 before = ivec4(0);
  for (int t = 0; 4 * t < segmentSize; t++) {
    uvec4 others = bitsOf(fetchKeyScores(at, t, 0));
    for (int c = 0; c < 4 && 4 * t + c < segmentSize; c++) {
      uvec4 other = uvec4(others[c]);
      ivec4 wins = ivec4(greaterThan(other, own));
      ivec4 ties = ivec4(equal(other, own)) * ivec4(lessThan(ivec4(4 * t + c), ownKeys));
      before += wins + ties;
    }
  }
  result0 = vec4(before);
}`;
  }
}

/**
 * Last part of stage 1: the keys of each complete segment by their ranks, the others in their own order: `keyIndices`,
 * as `keyIndexSplit` cuts them.
 */
export class SortKeysProgram extends AttentionProgram<{sort: boolean; tileKeys: number}> {
  constructor({geometry, context}: WebGLCall, ranks?: RowTexture) {
    const tileKeys = context.drawBuffers;
    const {tiles, columns} = keyIndexSplit(geometry, tileKeys);
    const {batch, heads, keyBlocks} = geometry;
    super({
      name: 'SortKeys',
      inputs: {...(ranks && {ranks})},
      geometry,
      uniforms: {tiles},
      output: {rows: batch * heads * keyBlocks, columns},
      variant: {sort: ranks !== undefined, tileKeys},
      fetches: ranks ? ranks.texels : 1,
    });
  }

  protected shader({sort, tileKeys}: {sort: boolean; tileKeys: number}): string {
    return `
// A fragment finds the keys for four positions of a tile${sort ? ', by looking for their ranks in the segment' : ''}.
void compute(int row, int texel) {
  int tile = 4 * texel / ${tileKeys};
  ivec4 places = tile + (ivec4(0, 1, 2, 3) + 4 * texel % ${tileKeys}) * tiles;
  int firstOfBlock = (row % keyBlocks) * keyBlockSize;
  ivec4 keys = firstOfBlock + places;
  ${
    sort
      ? `if (firstOfBlock < permutedLength) {
    int segment = firstOfBlock / segmentSize;
    int firstOfSegment = segment * segmentSize;
    ivec4 wanted = keys - firstOfSegment;
    ivec2 at = ranksAt((row / keyBlocks) * (permutedLength / segmentSize) + segment);
    for (int t = 0; 4 * t < segmentSize; t++) {
      ivec4 ranks = ivec4(fetchRanks(at, t, 0));
      for (int c = 0; c < 4 && 4 * t + c < segmentSize; c++) {
        keys = ivec4(mix(vec4(keys), vec4(firstOfSegment + 4 * t + c), equal(ivec4(ranks[c]), wanted)));
      }
    }
  }`
      : ''
  }
  // Nothing stands in the filling of a row, and past the last key.
  ivec4 end = ivec4(min(keyBlockSize, keyLength - firstOfBlock));
  result0 = mix(vec4(-1.0), vec4(keys), lessThan(places, end));
}`;
  }
}
