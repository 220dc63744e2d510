import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import type {AttentionContext} from '../runtime/context.js';
import {keyEndText, keyEndUniforms} from '../glsl/key_lengths.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {headUniforms, keyBase, maskedScore, noMaximum} from '../glsl/score_tile.js';

/**
 * Stage 2, score blocks, by the pooled estimate (paper section 3.3): rows of `keyBlocks` values, one row a query block and head: the share of
 * attention that a query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1,
 * or to 0 where nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  keyIndices: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  keyLengths?: RowTexture,
): RowTexture {
  return withScratch(context, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(query, key, keyIndices, geometry, keyLengths).run(context));
    const logits = scratch(new BlockLogitsProgram(pooled, geometry, scale, causal, keyLengths).run(context));
    const logSums = scratch(new LogitSumsProgram(logits).run(context));
    return new BlockScoresProgram(logits, logSums, geometry, causal, keyLengths).run(context);
  });
}

/** Shader text: key blocks `[0, candidates)` compete for a query block. Needs the uniforms of `candidateUniforms`. */
export function candidateBlocks(causal: boolean): string {
  const count = causal ? '(queryOffset + queryBlock * blockSize) / segmentSize * blocksPerSegment' : 'blocks';
  return `
int candidateBlocks(int queryBlock) {
  return ${count};
}`;
}

/** Shader text: key blocks `[0, visibleBlocks)` can hold a key that a row of a query block may see. Same uniforms. */
export function visibleBlocks(causal: boolean): string {
  return `
int visibleBlocks(int queryBlock) {
  ${
    causal
      ? `int lastRow = min((queryBlock + 1) * blockSize, queryLength) - 1;
  return min(((queryOffset + lastRow) / segmentSize + 1) * blocksPerSegment, blocks);`
      : 'return blocks;'
  }
}`;
}

export function candidateUniforms(geometry: BlockGeometry, causal: boolean): Uniforms {
  const {keyBlocks, queryBlocks, queryLength, queryOffset, segmentSize, blockSize, keyBlockSize} = geometry;
  return {
    blocks: {type: 'int', value: keyBlocks},
    queryBlocks: {type: 'int', value: queryBlocks},
    ...(causal && {
      queryLength: {type: 'int', value: queryLength},
      queryOffset: {type: 'int', value: queryOffset},
      blockSize: {type: 'int', value: blockSize},
      segmentSize: {type: 'int', value: segmentSize},
      blocksPerSegment: {type: 'int', value: segmentSize / keyBlockSize},
    }),
  };
}

/**
 * Shader text: key blocks `[0, competingBlocks)` hold keys that compete for a query block of a head. Needs the uniforms of
 * `competingUniforms`.
 */
export function competingBlocks(causal: boolean, padded: boolean): string {
  const competing = padded
    ? 'min(candidateBlocks(queryBlock), (keyEnd(head) + keyBlockSize - 1) / keyBlockSize)'
    : 'candidateBlocks(queryBlock)';
  return `${padded ? keyEndText : ''}${candidateBlocks(causal)}
int competingBlocks(int head, int queryBlock) {
  return ${competing};
}`;
}

export function competingUniforms(geometry: BlockGeometry, causal: boolean, padded: boolean): Uniforms {
  return {
    ...candidateUniforms(geometry, causal),
    ...(padded && {...keyEndUniforms(geometry), keyBlockSize: {type: 'int', value: geometry.keyBlockSize}}),
  };
}

/** Rows a head in the texture of mean queries and mean keys, which has layers of one size. */
const pooledBlocks = ({queryBlocks, keyBlocks}: BlockGeometry) => Math.max(queryBlocks, keyBlocks);

/**
 * Rows of `headDim` values, one a block and head: the mean query of the block (layer 0) and the mean key of the block of
 * the permuted order (layer 1), which differs by head.
 */
export class PoolBlocksProgram extends AttentionProgram<{padded: boolean}> {
  constructor(
    query: RowTexture,
    key: RowTexture,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    keyLengths?: RowTexture,
  ) {
    const {batch, heads, queryLength, headDim, blockSize, keyBlockSize, keyBlocks} = geometry;
    super({
      name: 'PoolBlocks',
      inputs: {query, key, keyIndices, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        queryLength: {type: 'int', value: queryLength},
        pooledBlocks: {type: 'int', value: pooledBlocks(geometry)},
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
        keyBlockSize: {type: 'int', value: keyBlockSize},
        indexTexels: {type: 'int', value: keyIndices.texels},
      },
      output: {rows: batch * heads * pooledBlocks(geometry), columns: headDim},
      layers: 2,
      variant: {padded: keyLengths !== undefined},
      fetches: blockSize + 2 * keyBlockSize,
    });
  }

  protected shader({padded}: {padded: boolean}): string {
    return `
// A fragment adds up one vector of a block's queries and keys, as far as there are such blocks. A partial block is still
// divided by the block size.
${keyBase}${padded ? keyEndText : ''}
void compute(int row, int texel) {
  int head = row / pooledBlocks;
  int block = row % pooledBlocks;
  int firstPosition = block * blockSize;
  vec4 querySum = vec4(0.0);
  for (int i = 0; i < min(blockSize, queryLength - firstPosition); i++) {
    querySum += readQuery(head * queryLength + firstPosition + i, texel);
  }
  int firstKey = keyBase(head);
  ${padded ? 'int end = keyEnd(head);\n  ' : ''}vec4 keySum = vec4(0.0);
  for (int i = 0; block < blocks && i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(head * blocks + block, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0${padded ? ' && keys[c] < end' : ''}) {
        keySum += readKey(firstKey + keys[c], texel);
      }
    }
  }
  result0 = querySum / float(blockSize);
  result1 = keySum / float(keyBlockSize);
}`;
  }
}

interface BlockLogitsVariant {
  headDim: number;
  causal: boolean;
  padded: boolean;
}

/** log2 of the unnormalised weight of each key block, masked where it does not compete. Rows as in the scores. */
export class BlockLogitsProgram extends AttentionProgram<BlockLogitsVariant> {
  constructor(pooled: RowTexture, geometry: BlockGeometry, scale: number, causal: boolean, keyLengths?: RowTexture) {
    const {batch, heads, headDim, queryBlocks, keyBlocks} = geometry;
    const padded = keyLengths !== undefined;
    super({
      name: 'BlockLogits',
      inputs: {pooled, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...competingUniforms(geometry, causal, padded),
        pooledBlocks: {type: 'int', value: pooledBlocks(geometry)},
        logitScale: {type: 'float', value: scale * Math.LOG2E},
      },
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      variant: {headDim, causal, padded},
      fetches: 5 * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, causal, padded}: BlockLogitsVariant): string {
    return `
// A fragment multiplies one mean query with four mean keys.
${competingBlocks(causal, padded)}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int queryBlock = row % queryBlocks;
  int competing = competingBlocks(head, queryBlock);
  int firstBlock = 4 * texel;
  if (firstBlock >= competing) {
    result0 = vec4(${maskedScore});
    return;
  }
  ivec2 query = pooledAt(head * pooledBlocks + queryBlock);
  int firstKeyRow = head * pooledBlocks + firstBlock;
  ${unroll(4, (c) => `ivec2 key${c} = pooledAt(firstKeyRow + ${c});`, '\n  ')}
  vec4 products = vec4(0.0);
  for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
    vec4 q = fetchPooled(query, v, 0);
    products += vec4(
      ${unroll(4, (c) => `dot(q, fetchPooled(key${c}, v, 1))`, ',\n      ')}
    );
  }
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + firstBlock, ivec4(competing));
  result0 = mix(vec4(${maskedScore}), logitScale * products, competes);
}`;
  }
}

/** log2 of the sum of exp2(logit) over a row. One value a row. */
export class LogitSumsProgram extends AttentionProgram<object> {
  constructor(logits: RowTexture) {
    super({
      name: 'LogitSums',
      inputs: {logits},
      uniforms: {},
      output: {rows: logits.rows, columns: 1},
      variant: {},
      fetches: 2 * logits.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment walks twice over its row. Masked logits weigh 0; in a row of them alone nobody asks for the sum. What a row has
// beyond its columns is masked as well.
void compute(int row, int texel) {
  ivec2 at = logitsAt(row);
  vec4 maxima = vec4(${noMaximum});
  for (int t = 0; t < logitsTexels; t++) {
    maxima = max(maxima, fetchLogits(at, t, 0));
  }
  float rowMax = max(max(maxima.x, maxima.y), max(maxima.z, maxima.w));
  vec4 sums = vec4(0.0);
  for (int t = 0; t < logitsTexels; t++) {
    sums += exp2(fetchLogits(at, t, 0) - rowMax);
  }
  result0 = vec4(rowMax + log2(dot(sums, vec4(1.0))));
}`;
  }
}

interface BlockScoresVariant {
  causal: boolean;
  padded: boolean;
}

/** The scores. */
export class BlockScoresProgram extends AttentionProgram<BlockScoresVariant> {
  constructor(
    logits: RowTexture,
    logSums: RowTexture,
    geometry: BlockGeometry,
    causal: boolean,
    keyLengths?: RowTexture,
  ) {
    const padded = keyLengths !== undefined;
    super({
      name: 'BlockScores',
      inputs: {logits, logSums, ...(keyLengths && {keyLengths})},
      uniforms: competingUniforms(geometry, causal, padded),
      output: {rows: logits.rows, columns: logits.columns},
      variant: {causal, padded},
      fetches: 2,
    });
  }

  protected shader({causal, padded}: BlockScoresVariant): string {
    return `
// A fragment turns four logits into shares.
${competingBlocks(causal, padded)}
void compute(int row, int texel) {
  int competing = competingBlocks(row / queryBlocks, row % queryBlocks);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  vec4 share = vec4(0.0);
  if (competes.x) {
    share = exp2(readLogits(row, texel) - readLogSums(row, 0).x);
  }
  result0 = mix(vec4(0.0), share, competes);
}`;
  }
}
