import type {BlockGeometry} from '../block_geometry.js';
import type {AttentionContext} from './context.js';
import {RankKeysProgram} from './sort_keys.js';
import type {Uniforms} from './program.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';

/**
 * Part of stage 2: rows of `probeRows` values, one row a query block and head: the rows of the block, counted from its first,
 * that lie farthest from the block's mean query, farthest first, equal distances by index. A block of fewer rows repeats its
 * first.
 */
export function chooseProbeRows(
  context: AttentionContext,
  query: RowTexture,
  geometry: BlockGeometry,
  probeRows: number,
): RowTexture {
  return withScratch(context, (scratch) => {
    const means = scratch(new MeanQueriesProgram(query, geometry).run(context));
    const distances = scratch(new QueryDistancesProgram(query, means, geometry).run(context));
    // Ranked as keys are by their scores, a block for a segment: neither is negative.
    const ranks = scratch(new RankKeysProgram(distances).run(context));
    return new ProbeRowsProgram(ranks, geometry, probeRows).run(context);
  });
}

function blockUniforms({queryLength, blockSize, queryBlocks}: BlockGeometry): Uniforms {
  return {
    queryLength: {type: 'int', value: queryLength},
    blockSize: {type: 'int', value: blockSize},
    queryBlocks: {type: 'int', value: queryBlocks},
  };
}

/** Shader text: how many rows a query block has. Needs `queryLength` and `blockSize`. */
const rowsInBlock = `
int rowsInBlock(int queryBlock) {
  return min(blockSize, queryLength - queryBlock * blockSize);
}`;

/** Rows of `headDim` values, one a query block and head: the mean of the rows that the block has. */
export class MeanQueriesProgram extends AttentionProgram<object> {
  constructor(query: RowTexture, geometry: BlockGeometry) {
    const {batch, heads, headDim, blockSize, queryBlocks} = geometry;
    super({
      inputs: {query},
      uniforms: blockUniforms(geometry),
      output: {rows: batch * heads * queryBlocks, columns: headDim},
      variant: {},
      fetches: blockSize,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up one vector of a block's queries.
${rowsInBlock}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int firstQuery = row / queryBlocks * queryLength + queryBlock * blockSize;
  int count = rowsInBlock(queryBlock);
  vec4 sum = vec4(0.0);
  for (int i = 0; i < count; i++) {
    sum += readQuery(firstQuery + i, texel);
  }
  result0 = sum / float(count);
}`;
  }
}

/** Rows of `blockSize` values, one a query block and head: squared distance of each of its rows from the mean. */
export class QueryDistancesProgram extends AttentionProgram<{headDim: number}> {
  constructor(query: RowTexture, means: RowTexture, geometry: BlockGeometry) {
    const {headDim, blockSize} = geometry;
    super({
      inputs: {query, means},
      uniforms: blockUniforms(geometry),
      output: {rows: means.rows, columns: blockSize},
      variant: {headDim},
      fetches: 5 * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim}: {headDim: number}): string {
    return `
// A fragment takes four rows. Rows that a block does not have get 0, and as they are its last, they rank behind the others.
${rowsInBlock}
void compute(int row, int texel) {
  int queryBlock = row % queryBlocks;
  int firstQuery = row / queryBlocks * queryLength + queryBlock * blockSize;
  int count = rowsInBlock(queryBlock);
  ivec2 mean = meansAt(row);
  vec4 distances = vec4(0.0);
  for (int c = 0; c < 4 && 4 * texel + c < count; c++) {
    ivec2 query = queryAt(firstQuery + 4 * texel + c);
    float sum = 0.0;
    for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
      vec4 x = fetchQuery(query, v, 0) - fetchMeans(mean, v, 0);
      sum += dot(x, x);
    }
    distances[c] = sum;
  }
  result0 = distances;
}`;
  }
}

/** The rows of the lowest ranks. */
export class ProbeRowsProgram extends AttentionProgram<object> {
  constructor(ranks: RowTexture, geometry: BlockGeometry, probeRows: number) {
    super({
      inputs: {ranks},
      uniforms: {...blockUniforms(geometry), probeRows: {type: 'int', value: probeRows}},
      output: {rows: ranks.rows, columns: probeRows},
      variant: {},
      fetches: ranks.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment finds four probe rows, by looking for their ranks. What a row has beyond its columns repeats the first, too.
${rowsInBlock}
void compute(int row, int texel) {
  int count = rowsInBlock(row % queryBlocks);
  ivec4 wanted = ivec4(0, 1, 2, 3) + 4 * texel;
  wanted *= ivec4(lessThan(wanted, ivec4(min(count, probeRows))));
  ivec2 at = ranksAt(row);
  vec4 probes = vec4(0.0);
  for (int t = 0; 4 * t < count; t++) {
    ivec4 ranks = ivec4(fetchRanks(at, t, 0));
    for (int c = 0; c < 4 && 4 * t + c < count; c++) {
      probes = mix(probes, vec4(4 * t + c), equal(ivec4(ranks[c]), wanted));
    }
  }
  result0 = probes;
}`;
  }
}
