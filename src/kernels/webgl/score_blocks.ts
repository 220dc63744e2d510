import type {BlockGeometry} from '../block_geometry.js';
import {firstProxyBlock} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {AttentionContext} from './context.js';
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
): RowTexture {
  return withScratch(context, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(query, key, keyIndices, geometry).run(context));
    const proxyMass =
      exactLastBlock && causal
        ? scratch(new ProxyMassProgram(keyScores, keyIndices, geometry).run(context))
        : undefined;
    const logits = scratch(new BlockLogitsProgram(pooled, geometry, scale, causal).run(context));
    const logSums = scratch(new BlockLogSumsProgram(logits).run(context));
    return new BlockScoresProgram(logits, logSums, geometry, causal, proxyMass).run(context);
  });
}

/** Shader text: key blocks `[0, candidates)` compete for a query block. Needs the uniforms of `candidateUniforms`. */
export function candidateBlocks(causal: boolean): string {
  const count = causal ? '(queryBlock / blocksPerSegment) * blocksPerSegment' : 'blocks';
  return `
int candidateBlocks(int queryBlock) {
  return ${count};
}`;
}

export function candidateUniforms({keyBlocks, segmentSize, blockSize}: BlockGeometry, causal: boolean): Uniforms {
  return {
    blocks: {type: 'int', value: keyBlocks},
    ...(causal && {blocksPerSegment: {type: 'int', value: segmentSize / blockSize}}),
  };
}

/**
 * Rows of `headDim` values, one a block and head: the mean query of the block (layer 0) and the mean key of the block of
 * the permuted order (layer 1), which differs by head.
 */
export class PoolBlocksProgram extends AttentionProgram<object> {
  constructor(query: RowTexture, key: RowTexture, keyIndices: RowTexture, geometry: BlockGeometry) {
    const {batch, heads, headDim, blockSize, keyBlocks} = geometry;
    super({
      inputs: {query, key, keyIndices},
      uniforms: {
        ...headUniforms(geometry),
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
      },
      output: {rows: batch * heads * keyBlocks, columns: headDim},
      layers: 2,
      variant: {},
      fetches: 3 * blockSize,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up one vector of a block's queries and keys. A partial block is still divided by the block size.
${keyBase}
void compute(int row, int texel) {
  int head = row / blocks;
  int firstPosition = (row % blocks) * blockSize;
  vec4 querySum = vec4(0.0);
  for (int i = 0; i < min(blockSize, length - firstPosition); i++) {
    querySum += readQuery(head * length + firstPosition + i, texel);
  }
  int firstKey = keyBase(head);
  vec4 keySum = vec4(0.0);
  for (int i = 0; 4 * i < blockSize; i++) {
    ivec4 keys = ivec4(readKeyIndices(row, i));
    for (int c = 0; c < 4; c++) {
      if (keys[c] >= 0) {
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
        blockSize: {type: 'int', value: blockSize},
        segmentSize: {type: 'int', value: segmentSize},
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
  for (int i = 0; 4 * i < blockSize; i++) {
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
}

/** log2 of the unnormalised weight of each key block, masked where it does not compete. Rows as in the scores. */
export class BlockLogitsProgram extends AttentionProgram<BlockLogitsVariant> {
  constructor(pooled: RowTexture, geometry: BlockGeometry, scale: number, causal: boolean) {
    const {batch, heads, headDim, queryBlocks, keyBlocks} = geometry;
    super({
      inputs: {pooled},
      uniforms: {
        ...candidateUniforms(geometry, causal),
        logitScale: {type: 'float', value: scale * Math.LOG2E},
      },
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      variant: {headDim, causal},
      fetches: 5 * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, causal}: BlockLogitsVariant): string {
    return `
// A fragment multiplies one mean query with four mean keys.
${candidateBlocks(causal)}
void compute(int row, int texel) {
  int queryBlock = row % blocks;
  int firstBlock = 4 * texel;
  if (firstBlock >= candidateBlocks(queryBlock)) {
    result0 = vec4(${maskedScore});
    return;
  }
  ivec2 query = pooledAt(row);
  int firstKeyRow = row - queryBlock + firstBlock;
  ${each(4, (c) => `ivec2 key${c} = pooledAt(firstKeyRow + ${c});`, '\n  ')}
  vec4 products = vec4(0.0);
  for (int v = 0; v < ${Math.ceil(headDim / 4)}; v++) {
    vec4 q = fetchPooled(query, v, 0);
    products += vec4(
      ${each(4, (c) => `dot(q, fetchPooled(key${c}, v, 1))`, ',\n      ')}
    );
  }
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + firstBlock, ivec4(candidateBlocks(queryBlock)));
  result0 = mix(vec4(${maskedScore}), logitScale * products, competes);
}`;
  }
}

/** log2 of the sum of exp2(logit) over a row. One value a row. */
export class BlockLogSumsProgram extends AttentionProgram<object> {
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

interface BlockScoresVariant {
  causal: boolean;
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
  ) {
    super({
      inputs: {logits, logSums, ...(proxyMass && {proxyMass})},
      uniforms: {
        ...candidateUniforms(geometry, causal),
        ...(proxyMass && {firstProxyBlock: {type: 'int', value: firstProxyBlock(geometry)}}),
      },
      output: {rows: logits.rows, columns: logits.columns},
      variant: {causal, exactLastBlock: proxyMass !== undefined},
      fetches: proxyMass ? logits.texels : 2,
    });
  }

  protected shader({causal, exactLastBlock}: BlockScoresVariant): string {
    return `
// A fragment turns four logits into shares${exactLastBlock ? '; or masses, in rows that have them' : ''}.
${candidateBlocks(causal)}
void compute(int row, int texel) {
  int candidates = candidateBlocks(row % blocks);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(candidates));
  vec4 share = vec4(0.0);
  if (competes.x) {
    ${
      exactLastBlock
        ? `if (row % blocks >= firstProxyBlock) {
      ivec2 at = proxyMassAt(row / blocks);
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
