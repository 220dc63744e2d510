import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {AttentionContext} from './context.js';
import {keyEndText, keyEndUniforms, proxyRangeText, proxyRangeUniforms} from './key_lengths.js';
import type {KeyOrder} from './permute.js';
import type {Uniforms} from './program.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {headUniforms, keyBase, maskedScore, noMaximum} from './score_tile.js';

/**
 * Stage 2, score blocks (paper section 3.3): rows of `keyBlocks` values, one row a query block and head: the share of
 * attention that a query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1,
 * or to 0 where nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys. With `exactLastBlock`, query blocks that hold
 * proxy rows take the attention that those rows pay, known from stage 1; that needs a causal mask, because stage 1
 * knows complete segments alone.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  {keyScores, keyIndices}: KeyOrder,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  exactLastBlock: boolean,
  keyLengths?: RowTexture,
): RowTexture {
  return withScratch(context, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(query, key, keyIndices, geometry, keyLengths).run(context));
    const proxyMass =
      exactLastBlock && causal
        ? scratch(new ProxyMassProgram(keyScores, keyIndices, geometry).run(context))
        : undefined;
    const logits = scratch(new BlockLogitsProgram(pooled, geometry, scale, causal, keyLengths).run(context));
    const logSums = scratch(new LogitSumsProgram(logits).run(context));
    return new BlockScoresProgram(logits, logSums, geometry, causal, proxyMass, keyLengths).run(context);
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
  const {keyBlocks, queryBlocks, queryLength, queryOffset, segmentSize, blockSize} = geometry;
  return {
    blocks: {type: 'int', value: keyBlocks},
    queryBlocks: {type: 'int', value: queryBlocks},
    ...(causal && {
      queryLength: {type: 'int', value: queryLength},
      queryOffset: {type: 'int', value: queryOffset},
      blockSize: {type: 'int', value: blockSize},
      segmentSize: {type: 'int', value: segmentSize},
      blocksPerSegment: {type: 'int', value: segmentSize / blockSize},
    }),
  };
}

/**
 * Shader text: key blocks `[0, competingBlocks)` hold keys that compete for a query block of a head. Needs the uniforms of
 * `competingUniforms`.
 */
export function competingBlocks(causal: boolean, padded: boolean): string {
  const competing = padded
    ? 'min(candidateBlocks(queryBlock), (keyEnd(head) + blockSize - 1) / blockSize)'
    : 'candidateBlocks(queryBlock)';
  return `${padded ? keyEndText : ''}${candidateBlocks(causal)}
int competingBlocks(int head, int queryBlock) {
  return ${competing};
}`;
}

export function competingUniforms(geometry: BlockGeometry, causal: boolean, padded: boolean): Uniforms {
  return {
    ...candidateUniforms(geometry, causal),
    ...(padded && {...keyEndUniforms(geometry), blockSize: {type: 'int', value: geometry.blockSize}}),
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
    const {batch, heads, queryLength, headDim, blockSize, keyBlocks} = geometry;
    super({
      inputs: {query, key, keyIndices, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        queryLength: {type: 'int', value: queryLength},
        pooledBlocks: {type: 'int', value: pooledBlocks(geometry)},
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
        indexTexels: {type: 'int', value: keyIndices.texels},
      },
      output: {rows: batch * heads * pooledBlocks(geometry), columns: headDim},
      layers: 2,
      variant: {padded: keyLengths !== undefined},
      fetches: 3 * blockSize,
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
  result1 = keySum / float(blockSize);
}`;
  }
}

/** Rows of `keyBlocks` values, one a head: attention of the proxy rows to each block of keys in complete segments. */
export class ProxyMassProgram extends AttentionProgram<object> {
  constructor(keyScores: RowTexture, keyIndices: RowTexture, geometry: BlockGeometry) {
    const {batch, heads, blockSize, segmentSize, keyBlocks, permutedLength} = geometry;
    super({
      inputs: {keyScores, keyIndices},
      uniforms: {
        blocks: {type: 'int', value: keyBlocks},
        segmentSize: {type: 'int', value: segmentSize},
        indexTexels: {type: 'int', value: keyIndices.texels},
        permutedLength: {type: 'int', value: permutedLength},
      },
      output: {rows: batch * heads, columns: keyBlocks},
      variant: {},
      fetches: 5 * blockSize,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up the scores of the keys of four blocks.
float massOf(int head, int block) {
  float sum = 0.0;
  for (int i = 0; i < indexTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(head * blocks + block, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
        int segment = head * (permutedLength / segmentSize) + keys[c] / segmentSize;
        int place = keys[c] % segmentSize;
        sum += readKeyScores(segment, place / 4)[place % 4];
      }
    }
  }
  return sum;
}
void compute(int head, int texel) {
  vec4 mass = vec4(0.0);
  for (int c = 0; c < 4; c++) {
    int block = 4 * texel + c;
    if ((block + 1) * blockSize <= permutedLength) {
      mass[c] = massOf(head, block);
    }
  }
  result0 = mass;
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
  ${each(4, (c) => `ivec2 key${c} = pooledAt(firstKeyRow + ${c});`, '\n  ')}
  vec4 products = vec4(0.0);
  for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
    vec4 q = fetchPooled(query, v, 0);
    products += vec4(
      ${each(4, (c) => `dot(q, fetchPooled(key${c}, v, 1))`, ',\n      ')}
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

/** Shader text: whether a query block holds proxy rows of its batch entry, or stands behind them. */
export const hasProxyRows = `${proxyRangeText}
bool hasProxyRows(int head, int queryBlock) {
  ivec2 range = proxyRange(head);
  return range.x < range.y && queryBlock >= range.x / blockSize;
}`;

interface BlockScoresVariant {
  causal: boolean;
  padded: boolean;
  exactLastBlock: boolean;
}

/** The scores. */
export class BlockScoresProgram extends AttentionProgram<BlockScoresVariant> {
  constructor(
    logits: RowTexture,
    logSums: RowTexture,
    geometry: BlockGeometry,
    causal: boolean,
    proxyMass?: RowTexture,
    keyLengths?: RowTexture,
  ) {
    const padded = keyLengths !== undefined;
    super({
      inputs: {logits, logSums, ...(proxyMass && {proxyMass}), ...(keyLengths && {keyLengths})},
      uniforms: {
        ...competingUniforms(geometry, causal, padded),
        ...(proxyMass &&
          (padded
            ? proxyRangeUniforms(geometry, causal)
            : {firstProxyBlock: {type: 'int', value: firstProxyBlock(geometry)}})),
      },
      output: {rows: logits.rows, columns: logits.columns},
      variant: {causal, padded, exactLastBlock: proxyMass !== undefined},
      fetches: proxyMass ? logits.texels : 2,
    });
  }

  protected shader({causal, padded, exactLastBlock}: BlockScoresVariant): string {
    const hasMass = padded ? 'hasProxyRows(head, row % queryBlocks)' : 'row % queryBlocks >= firstProxyBlock';
    return `
// A fragment turns four logits into shares${exactLastBlock ? '; or masses, in rows that have them' : ''}.
${competingBlocks(causal, padded)}${exactLastBlock && padded ? hasProxyRows : ''}
void compute(int row, int texel) {
  int head = row / queryBlocks;
  int candidates = competingBlocks(head, row % queryBlocks);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(candidates));
  vec4 share = vec4(0.0);
  if (competes.x) {
    ${
      exactLastBlock
        ? `if (${hasMass}) {
      ivec2 at = proxyMassAt(head);
      float total = 0.0;
      for (int t = 0; 4 * t < candidates; t++) {
        bvec4 counts = lessThan(ivec4(0, 1, 2, 3) + 4 * t, ivec4(candidates));
        total += dot(mix(vec4(0.0), fetchProxyMass(at, t, 0), counts), vec4(1.0));
      }
      // No mass outside the own segment: the row stays 0, never reaches a threshold, and every block is kept.
      share = total != 0.0 ? fetchProxyMass(at, texel, 0) / total : vec4(0.0);
    } else {
      share = exp2(readLogits(row, texel) - readLogSums(row, 0).x);
    }`
        : 'share = exp2(readLogits(row, texel) - readLogSums(row, 0).x);'
    }
  }
  result0 = mix(vec4(0.0), share, competes);
}`;
  }
}
