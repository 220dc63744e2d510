import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import type {Uniforms} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {RowSplit} from '../runtime/tensor_rows.js';
import {wholeRows} from '../runtime/tensor_rows.js';
import {maskedScore} from './score_tile.js';
import {groupRows, keyIndexSplit, tilesPerBlock} from './tiles.js';

/** A mask that broadcasts to `[batch, heads, queryLength, keyLength]`. */
export interface AttentionMask {
  /** As `maskSplit` cuts it. */
  rows: RowTexture;
  shape: number[];
  /** bool: whether a row may see a key. float32: what is added to the scaled score; −Infinity hides the key. */
  dtype: string;
}

/** One row a block of keys, or a single one, and mask row: in the order of tiles, as key indices are. */
export function maskSplit(shape: number[], geometry: BlockGeometry, tileKeys: number): RowSplit {
  return shape[3] === 1 ? wholeRows(1) : {...keyIndexSplit(geometry, tileKeys), filler: 0};
}

/**
 * How far the next batch entry, head, query row and key block are in the rows of a mask, 0 along what is broadcast; and how its keys lie
 * there. The sizes of a walk are not always those of its mask.
 *
 * @param geometry that of the call.
 */
export function maskUniforms({shape}: AttentionMask, geometry: BlockGeometry, tileKeys: number): Uniforms {
  const {queryLength, keyLength, keyBlockSize, keyBlocks} = geometry;
  const [batches, heads, rows, keys] = shape;
  const pieces = keys === 1 ? 1 : keyBlocks;
  const step = (size: number, rowsBetween: number) => (size === 1 ? 0 : rowsBetween);
  return {
    maskBatchStep: step(batches, heads * rows * pieces),
    maskHeadStep: step(heads, rows * pieces),
    maskRowStep: step(rows, pieces),
    maskBlockStep: step(keys, 1),
    maskBlockSize: keyBlockSize,
    maskTiles: tilesPerBlock(geometry, tileKeys),
    maskLastRow: queryLength - 1,
    maskLastKey: keyLength - 1,
  };
}

/**
 * Shader text: `maskAt(…)`, what the mask holds for a query row and four keys of a tile, and `maskedText`. Needs the input
 * `mask` and the uniforms of `maskUniforms`.
 */
export function maskText(dtype: string, tileKeys: number): string {
  return `
vec4 maskAt(int head, int query, int block, int tile, int four) {
  int row = (head / heads) * maskBatchStep + (head % heads) * maskHeadStep + min(query, queryLength - 1) * maskRowStep;
  if (maskBlockStep == 0) {
    return readMask(row, 0).xxxx;
  }
  return readMask(row + block, tile * ${tileKeys / 4} + four);
}${maskedText(dtype)}`;
}

/**
 * Shader text: `maskOf(…)`, what the mask holds for four query rows and the keys with four original indices, wherever a plan puts them; and
 * `maskedText`. Of rows and keys that do not exist it says something. Needs what `maskText` needs.
 */
export function maskByKeyText(dtype: string, tileKeys: number): string {
  return `
float maskOfKey(int head, int query, int key) {
  int row = (head / heads) * maskBatchStep + (head % heads) * maskHeadStep + clamp(query, 0, maskLastRow) * maskRowStep;
  if (maskBlockStep == 0) {
    return readMask(row, 0).x;
  }
  int known = clamp(key, 0, maskLastKey);
  int block = divide(known, maskBlockSize);
  int inBlock = known - block * maskBlockSize;
  int place = divide(inBlock, maskTiles);
  int column = (inBlock - place * maskTiles) * ${tileKeys} + place;
  return readMask(row + block, column / 4)[column % 4];
}
vec4 maskOf(int head, ivec4 queries, ivec4 keys) {
  vec4 four;
  for (int i = 0; i < 4; i++) {
    four[i] = maskOfKey(head, queries[i], keys[i]);
  }
  return four;
}${maskedText(dtype)}`;
}

/**
 * Shader text: `masked(scores, mask)`, four scores under what the mask holds for each.
 *
 * What is added stays above −10²⁸, far above what marks a masked score: a row of the lowest numbers everywhere still
 * sees every key. −Infinity is known by its bits, because compilers may assume that there is none.
 */
function maskedText(dtype: string): string {
  return `
vec4 masked(vec4 scores, vec4 mask) {
  ${
    dtype === 'bool'
      ? `return mix(vec4(${maskedScore}), scores, notEqual(mask, vec4(0.0)));`
      : `bvec4 hides = equal(floatBitsToUint(mask), uvec4(0xff800000u));
  return mix(scores + ${Math.LOG2E} * max(mask, vec4(-1e28)), vec4(${maskedScore}), hides);`
  }
}`;
}

/** Shader text for the body of `compute`, after `writeScores`: brings the scores under the mask. */
export function maskScores(tileKeys: number): string {
  const rows = Array.from({length: groupRows}, (_, q) => q);
  const bias = (k: number) => rows.map((q) => `mask${q}of${Math.floor(k / 4)}[${k % 4}]`).join(', ');
  return `
  ${unroll(
    tileKeys / 4,
    (i) =>
      unroll(groupRows, (q) => `vec4 mask${q}of${i} = maskAt(head, queries[${q}], block, tileOfBlock, ${i});`, '\n  '),
    '\n  ',
  )}
  ${unroll(tileKeys, (k) => `result${k} = masked(result${k}, vec4(${bias(k)}));`, '\n  ')}`;
}
