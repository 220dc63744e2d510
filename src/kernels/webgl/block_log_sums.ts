import {summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import {keyEndText} from './key_lengths.js';
import type {Uniforms} from './program.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {candidateBlocks, competingUniforms, visibleBlocks} from './score_blocks.js';
import {
  groupRows,
  headUniforms,
  keyBase,
  maskedScore,
  noMaximum,
  orNone,
  tileProducts,
  visibleScores,
} from './score_tile.js';

/**
 * How what rows of the query blocks pay to key blocks is drawn: for query blocks `[firstRow, endRow)` of
 * `[batch, heads, queryBlocks]` at a time. The rows that stand for a query block are taken in *groups* of four, a component
 * each, and key blocks in *tiles*, a layer each. A texture has a row a group, `[query block, group]`, and a texel a tile.
 */
export interface EstimateWalk {
  geometry: BlockGeometry;
  scale: number;
  causal: boolean;
  /** Key blocks of a tile: as many as there are draw buffers. */
  tileBlocks: number;
  firstRow: number;
  endRow: number;
  /** As `loadKeyLengths` gives them. */
  keyLengths?: RowTexture;
}

/** What changes the shader text of a walk. */
export interface EstimateVariant {
  causal: boolean;
  padded: boolean;
  tileBlocks: number;
}

export const estimateVariant = ({causal, keyLengths, tileBlocks}: EstimateWalk): EstimateVariant => ({
  causal,
  padded: keyLengths !== undefined,
  tileBlocks,
});

/** Groups of the rows that stand for a query block where summaries are used. */
export const summaryGroups = summaryRows / groupRows;

/** Key blocks that do not compete for a query block, at most: those of its segment, or of two that it stands in. */
export const maxOwnBlocks = ({blockSize, segmentSize, keyBlocks}: BlockGeometry) =>
  Math.min((2 * segmentSize) / blockSize, keyBlocks);

/** Shader text: the query block of a row, counted over all heads, and its group. */
export const groupOfRow = `
  int blockRow = firstBlockRow + divide(row, groups);
  int group = row - (blockRow - firstBlockRow) * groups;
  int head = blockRow / queryBlocks;
  int queryBlock = blockRow % queryBlocks;`;

/** Uniforms of the texts of this file, and of the ranges of key blocks. */
export function estimateUniforms({geometry, causal, firstRow, keyLengths}: EstimateWalk, groups: number): Uniforms {
  const {blockSize, queryLength} = geometry;
  return {
    ...headUniforms(geometry),
    ...competingUniforms(geometry, causal, keyLengths !== undefined),
    queryLength: {type: 'int', value: queryLength},
    blockSize: {type: 'int', value: blockSize},
    firstBlockRow: {type: 'int', value: firstRow},
    groups: {type: 'int', value: groups},
  };
}

/**
 * Shader text: `rowsOf(group, queryBlock)`, four of the rows that stand for a query block where summaries are used. The
 * function `summaryRow` of `block_estimate.ts`. Needs `queryLength` and `blockSize`.
 */
export const summaryRowsOf = `
ivec4 rowsOf(int group, int queryBlock) {
  int first = queryBlock * blockSize;
  int count = min(blockSize, queryLength - first);
  ivec4 places = ivec4(1, 2, 3, 4) + ${groupRows} * group;
  return first + max(places * count / ${summaryRows} - 1, ivec4(0));
}`;

interface BlockLogSumsVariant extends EstimateVariant {
  headDim: number;
  own: boolean;
}

/**
 * Part of stage 2: log2 of what some rows of each query block pay to each key block: of the sum of exp2(score) over the keys
 * of the block that the row may see, masked where there are none. Texel t, layer i of a row: key block i of tile t, with the
 * group's four query rows.
 *
 * With `probes`, as `chooseProbeRows` gives them, these rows and all key blocks. Without, the rows that stand for the block
 * where summaries are used, and only its own segment: key blocks count from the first that does not compete.
 */
export class BlockLogSumsProgram extends AttentionProgram<BlockLogSumsVariant> {
  constructor(walk: EstimateWalk, query: RowTexture, key: RowTexture, keyIndices: RowTexture, probes?: RowTexture) {
    const {geometry, scale, tileBlocks, firstRow, endRow, keyLengths} = walk;
    const {headDim, blockSize, keyBlocks} = geometry;
    const groups = probes ? probes.texels : summaryGroups;
    const blocks = probes ? keyBlocks : maxOwnBlocks(geometry);
    super({
      inputs: {query, key, keyIndices, ...(probes && {probes}), ...(keyLengths && {keyLengths})},
      uniforms: {...estimateUniforms(walk, groups), logitScale: {type: 'float', value: scale * Math.LOG2E}},
      output: {rows: (endRow - firstRow) * groups, columns: 4 * Math.ceil(blocks / tileBlocks)},
      layers: tileBlocks,
      variant: {...estimateVariant(walk), headDim, own: probes === undefined},
      fetches: blockSize * ((groupRows + tileBlocks) * Math.ceil(headDim / 4) + tileBlocks / 4),
    });
  }

  protected shader({headDim, causal, padded, own, tileBlocks}: BlockLogSumsVariant): string {
    const indices = (k: number) =>
      `firstBlock + ${k} < end ? ivec4(readKeyIndices(head * blocks + firstBlock + ${k}, i)) : ivec4(-1)`;
    return `
// A fragment takes four rows and ${tileBlocks} key blocks, and walks over these side by side, one key of each at a time: an online
// softmax for each block.
${keyBase}${padded ? keyEndText + orNone : ''}
${own ? candidateBlocks(causal) : ''}${visibleBlocks(causal)}
${visibleScores(causal)}
${
  own
    ? summaryRowsOf
    : `ivec4 rowsOf(int blockRow, int group, int queryBlock) {
  return queryBlock * blockSize + ivec4(readProbes(blockRow, group));
}`
}
void compute(int row, int tile) {${groupOfRow}
  ivec4 queries = ${own ? 'rowsOf(group, queryBlock)' : 'rowsOf(blockRow, group, queryBlock)'};
  int firstBlock = ${own ? 'candidateBlocks(queryBlock) + ' : ''}tile * ${tileBlocks};
  int end = visibleBlocks(queryBlock);
  int firstKey = keyBase(head);
  ${each(tileBlocks, (k) => `vec4 rowMax${k} = vec4(${noMaximum});\n  vec4 rowSum${k} = vec4(0.0);`, '\n  ')}
  for (int i = 0; firstBlock < end && i < keyIndicesTexels; i++) {
    ${each(tileBlocks, (k) => `ivec4 indices${k} = ${padded ? `orNone(${indices(k)}, keyEnd(head))` : indices(k)};`)}
    for (int c = 0; c < 4; c++) {
      ${each(
        tileBlocks / 4,
        (i) => `ivec4 keys${i} = ivec4(${each(4, (k) => `indices${4 * i + k}[c]`, ', ')});`,
        '\n      ',
      )}
      // What is no key is read as if it were the first, and masked.
      ${each(tileBlocks / 4, (i) => `ivec4 positions${i} = max(keys${i}, ivec4(0));`, '\n      ')}
${tileProducts(headDim, tileBlocks)}
      vec4 s;
      vec4 newMax;
      ${each(
        tileBlocks,
        (k) => `s = visible(keys${Math.floor(k / 4)}[${k % 4}], queries, logitScale * score${k});
      newMax = max(rowMax${k}, s);
      rowSum${k} = rowSum${k} * exp2(rowMax${k} - newMax) + exp2(s - newMax);
      rowMax${k} = newMax;`,
        '\n      ',
      )}
    }
  }
  ${each(
    tileBlocks,
    (k) => `result${k} = mix(vec4(${maskedScore}), rowMax${k} + log2(rowSum${k}), notEqual(rowSum${k}, vec4(0.0)));`,
    '\n  ',
  )}
}`;
  }
}
