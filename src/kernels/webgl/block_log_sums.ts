import {summaryRows} from '../block_estimate.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import {keyEndText} from './key_lengths.js';
import type {Uniforms} from './program.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {candidateBlocks, candidateUniforms, visibleBlocks} from './score_blocks.js';
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
 * Query blocks `[first, end)` of `[batch, heads, queryBlocks]`, which are worked on at a time. Some rows stand for each; they
 * are taken in groups of four, a component each. A row of a texture is a group, `[query block of the range, group]`.
 */
export interface QueryBlockRange {
  first: number;
  end: number;
}

export const summaryGroups = summaryRows / groupRows;

/** Key blocks that do not compete for a query block: those of the segments that it stands in, two if it straddles them. */
export const maxOwnBlocks = ({blockSize, segmentSize, keyBlocks}: BlockGeometry) =>
  Math.min((2 * segmentSize) / blockSize, keyBlocks);

/** Shader text: the query block of a texture row, counted over all heads, and its group. Needs `rangeUniforms`. */
export const rangeRow = `
  int blockRow = firstBlockRow + divide(row, groups);
  int group = row - (blockRow - firstBlockRow) * groups;
  int head = blockRow / queryBlocks;
  int queryBlock = blockRow % queryBlocks;`;

export function rangeUniforms({first}: QueryBlockRange, groups: number): Uniforms {
  return {
    firstBlockRow: {type: 'int', value: first},
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

interface BlockLogSumsVariant {
  headDim: number;
  causal: boolean;
  padded: boolean;
  own: boolean;
  blocks: number;
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
  constructor(
    query: RowTexture,
    key: RowTexture,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    range: QueryBlockRange,
    blocks: number,
    scale: number,
    causal: boolean,
    probes?: RowTexture,
    keyLengths?: RowTexture,
  ) {
    const {headDim, blockSize, queryLength, queryOffset, keyBlocks} = geometry;
    const groups = probes ? probes.texels : summaryGroups;
    const blocksOfRow = probes ? keyBlocks : maxOwnBlocks(geometry);
    super({
      inputs: {query, key, keyIndices, ...(probes && {probes}), ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        ...candidateUniforms(geometry, causal),
        ...rangeUniforms(range, groups),
        queryLength: {type: 'int', value: queryLength},
        blockSize: {type: 'int', value: blockSize},
        ...(causal && {queryOffset: {type: 'int', value: queryOffset}}),
        logitScale: {type: 'float', value: scale * Math.LOG2E},
      },
      output: {rows: (range.end - range.first) * groups, columns: 4 * Math.ceil(blocksOfRow / blocks)},
      layers: blocks,
      variant: {headDim, causal, padded: keyLengths !== undefined, own: probes === undefined, blocks},
      fetches: blockSize * ((groupRows + blocks) * Math.ceil(headDim / 4) + blocks / 4),
    });
  }

  protected shader({headDim, causal, padded, own, blocks}: BlockLogSumsVariant): string {
    const indices = (k: number) =>
      `firstBlock + ${k} < end ? ivec4(readKeyIndices(head * blocks + firstBlock + ${k}, i)) : ivec4(-1)`;
    return `
// A fragment takes four rows and ${blocks} key blocks, and walks over these side by side, one key of each at a time: an online
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
void compute(int row, int tile) {${rangeRow}
  ivec4 queries = ${own ? 'rowsOf(group, queryBlock)' : 'rowsOf(blockRow, group, queryBlock)'};
  int firstBlock = ${own ? 'candidateBlocks(queryBlock) + ' : ''}tile * ${blocks};
  int end = visibleBlocks(queryBlock);
  int firstKey = keyBase(head);
  ${each(blocks, (k) => `vec4 rowMax${k} = vec4(${noMaximum});\n  vec4 rowSum${k} = vec4(0.0);`, '\n  ')}
  for (int i = 0; firstBlock < end && i < keyIndicesTexels; i++) {
    ${each(blocks, (k) => `ivec4 indices${k} = ${padded ? `orNone(${indices(k)}, keyEnd(head))` : indices(k)};`)}
    for (int c = 0; c < 4; c++) {
      ${each(
        blocks / 4,
        (i) => `ivec4 keys${i} = ivec4(${each(4, (k) => `indices${4 * i + k}[c]`, ', ')});
      // What is no key is read as if it were the first, and masked.
      ivec4 positions${i} = max(keys${i}, ivec4(0));`,
        '\n      ',
      )}
      ${tileProducts(headDim, blocks)}
      vec4 s;
      vec4 newMax;
      ${each(
        blocks,
        (k) => `s = visible(keys${Math.floor(k / 4)}[${k % 4}], queries, logitScale * score${k});
      newMax = max(rowMax${k}, s);
      rowSum${k} = rowSum${k} * exp2(rowMax${k} - newMax) + exp2(s - newMax);
      rowMax${k} = newMax;`,
        '\n      ',
      )}
    }
  }
  ${each(
    blocks,
    (k) => `result${k} = mix(vec4(${maskedScore}), rowMax${k} + log2(rowSum${k}), notEqual(rowSum${k}, vec4(0.0)));`,
    '\n  ',
  )}
}`;
  }
}
