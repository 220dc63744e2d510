import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {RowSplit} from '../runtime/tensor_rows.js';

/** How `[batch, heads, keyLength]` lies in the rows of `keyIndices`: tile after tile, each with as many keys as draw buffers. */
export const keyIndexSplit = ({keyLength, keyBlockSize}: BlockGeometry, drawBuffers: number): RowSplit => ({
  inner: keyLength,
  piece: keyBlockSize,
  tiles: Math.ceil(keyBlockSize / drawBuffers),
  tileValues: drawBuffers,
});

/** Values a row of `keyIndices`: a block, filled up to whole tiles. */
export const indexColumns = (keyBlockSize: number, drawBuffers: number) =>
  Math.ceil(keyBlockSize / drawBuffers) * drawBuffers;

/** Place of each key in its sorted segment: the number of keys that come before it. Rows as in `keyScores`. */
export class RankKeysProgram extends AttentionProgram<object> {
  constructor(keyScores: RowTexture) {
    super({
      name: 'RankKeys',
      inputs: {keyScores},
      uniforms: {segmentSize: {type: 'int', value: keyScores.columns}},
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
// when there are NaNs, so that the ranks are a permutation whatever the input.
void compute(int row, int texel) {
  ivec2 at = keyScoresAt(row);
  uvec4 own = floatBitsToUint(fetchKeyScores(at, texel, 0));
  ivec4 ownKeys = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 before = ivec4(0);
  for (int t = 0; 4 * t < segmentSize; t++) {
    uvec4 others = floatBitsToUint(fetchKeyScores(at, t, 0));
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

interface SortVariant {
  sort: boolean;
  tileKeys: number;
}

/** Last part of stage 1: the keys of each complete segment by their ranks, the others in their own order: `keyIndices`. */
export class SortKeysProgram extends AttentionProgram<SortVariant> {
  constructor(geometry: BlockGeometry, drawBuffers: number, ranks?: RowTexture) {
    const {batch, heads, keyLength, keyBlockSize, segmentSize, keyBlocks, permutedLength} = geometry;
    super({
      name: 'SortKeys',
      inputs: {...(ranks && {ranks})},
      uniforms: {
        blocks: {type: 'int', value: keyBlocks},
        keyBlockSize: {type: 'int', value: keyBlockSize},
        keyLength: {type: 'int', value: keyLength},
        tiles: {type: 'int', value: indexColumns(keyBlockSize, drawBuffers) / drawBuffers},
        ...(ranks && {
          permutedLength: {type: 'int', value: permutedLength},
          segmentSize: {type: 'int', value: segmentSize},
        }),
      },
      output: {rows: batch * heads * keyBlocks, columns: indexColumns(keyBlockSize, drawBuffers)},
      variant: {sort: ranks !== undefined, tileKeys: drawBuffers},
      fetches: ranks ? ranks.texels : 1,
    });
  }

  protected shader({sort, tileKeys}: SortVariant): string {
    return `
// A fragment finds the keys for four positions of a tile${sort ? ', by looking for their ranks in the segment' : ''}.
void compute(int row, int texel) {
  int tile = 4 * texel / ${tileKeys};
  ivec4 places = tile + (ivec4(0, 1, 2, 3) + 4 * texel % ${tileKeys}) * tiles;
  int firstOfBlock = (row % blocks) * keyBlockSize;
  ivec4 keys = firstOfBlock + places;
  ${
    sort
      ? `if (firstOfBlock < permutedLength) {
    int segment = firstOfBlock / segmentSize;
    int firstOfSegment = segment * segmentSize;
    ivec4 wanted = keys - firstOfSegment;
    ivec2 at = ranksAt((row / blocks) * (permutedLength / segmentSize) + segment);
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
