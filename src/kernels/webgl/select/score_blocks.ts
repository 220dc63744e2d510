import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {unroll} from '../../unroll.js';
import {candidateBlocks, firstBlock} from '../glsl/block_ranges.js';
import {keyEndText, keyLengthsInput} from '../glsl/key_lengths.js';
import {logOfSums} from '../glsl/not_finite.js';
import {keyBase, logitScale, maskedScore, noMaximum} from '../glsl/score_tile.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';

/**
 * Stage 2, score blocks, by the pooled estimate (paper section 3.3): rows of `keyBlocks` values, one row a query block and head: the share of
 * attention that a query block is expected to pay to each key block that competes for it, 0 elsewhere; a row adds up to 1,
 * or to 0 where nothing competes.
 *
 * The estimate is a softmax over products of mean queries and mean keys.
 *
 * With key lengths, keys that are padding add nothing to the means of their blocks, and blocks of nothing else score 0.
 */
export function scoreBlocks(call: WebGLCall, keyIndices: RowTexture): RowTexture {
  const {context} = call;
  return withScratch(context, (scratch) => {
    const pooled = scratch(new PoolBlocksProgram(call, keyIndices).run(context));
    const logits = scratch(new BlockLogitsProgram(call, pooled).run(context));
    const logSums = scratch(new LogitSumsProgram(logits).run(context));
    return new BlockScoresProgram(call, logits, logSums).run(context);
  });
}

/** Shader text: key blocks `[0, competingBlocks)` hold keys that compete for a query block of a head. */
function competingBlocks({causal, padded, window}: CallVariant): string {
  const competing = padded
    ? 'min(candidateBlocks(queryBlock), (keyEnd(head) + keyBlockSize - 1) / keyBlockSize)'
    : 'candidateBlocks(queryBlock)';
  return `${padded ? keyEndText : ''}${window ? firstBlock : ''}${candidateBlocks(causal, window)}
int competingBlocks(int head, int queryBlock) {
  return ${competing};
}`;
}

/** Statement: `value` for blocks that lie before the window. */
const hideBeforeWindow = (value: string) => `
  result0 = mix(result0, vec4(${value}), lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(firstVisibleBlock(row % queryBlocks))));`;

/** Rows a head in the texture of mean queries and mean keys, which has layers of one size. */
const pooledBlocks = ({queryBlocks, keyBlocks}: BlockGeometry) => Math.max(queryBlocks, keyBlocks);

/**
 * Rows of `headDim` values, one a block and head: the mean query of the block (layer 0) and the mean key of the block of
 * the permuted order (layer 1), which differs by head.
 */
export class PoolBlocksProgram extends AttentionProgram<CallVariant> {
  constructor(call: WebGLCall, keyIndices: RowTexture) {
    const {query, key, geometry} = call;
    const {batch, heads, headDim, blockSize, keyBlockSize} = geometry;
    const rows = batch * heads * pooledBlocks(geometry);
    super({
      name: 'PoolBlocks',
      inputs: {query, key, keyIndices, ...keyLengthsInput(call)},
      geometry,
      uniforms: {pooledBlocks: pooledBlocks(geometry)},
      output: {rows, columns: headDim, layers: 2},
      variant: callVariant(call),
      fetches: blockSize + 2 * keyBlockSize,
    });
  }

  protected shader({padded}: CallVariant): string {
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
  for (int i = 0; block < keyBlocks && i < keyIndicesTexels; i++) {
    ivec4 keys = ivec4(readKeyIndices(head * keyBlocks + block, i));
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

/** log2 of the unnormalised weight of each key block, masked where it does not compete. Rows as in the scores. */
export class BlockLogitsProgram extends AttentionProgram<CallVariant & {headDim: number}> {
  constructor(call: WebGLCall, pooled: RowTexture) {
    const {geometry, scale} = call;
    const {batch, heads, headDim, queryBlocks, keyBlocks} = geometry;
    super({
      name: 'BlockLogits',
      inputs: {pooled, ...keyLengthsInput(call)},
      geometry,
      uniforms: {pooledBlocks: pooledBlocks(geometry)},
      floats: logitScale(scale),
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      variant: {...callVariant(call), headDim},
      fetches: 5 * Math.ceil(headDim / 4),
    });
  }

  protected shader({headDim, ...variant}: CallVariant & {headDim: number}): string {
    return `
// A fragment multiplies one mean query with four mean keys.
${competingBlocks(variant)}
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
  result0 = mix(vec4(${maskedScore}), logitScale * products, competes);${variant.window ? hideBeforeWindow(maskedScore) : ''}
}`;
  }
}

/** log2 of the sum of exp2(logit) over a row. One value a row. */
export class LogitSumsProgram extends AttentionProgram<object> {
  constructor(logits: RowTexture) {
    super({
      name: 'LogitSums',
      inputs: {logits},
      output: {rows: logits.rows, columns: 1},
      variant: {},
      fetches: 2 * logits.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment walks twice over its row. Masked logits weigh 0; in a row of them alone nobody asks for the sum. What a row has
// beyond its columns is masked as well.${logOfSums}
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
  result0 = rowMax + logOfSums(vec4(dot(sums, vec4(1.0))));
}`;
  }
}

/** The scores. */
export class BlockScoresProgram extends AttentionProgram<CallVariant> {
  constructor(call: WebGLCall, logits: RowTexture, logSums: RowTexture) {
    super({
      name: 'BlockScores',
      inputs: {logits, logSums, ...keyLengthsInput(call)},
      geometry: call.geometry,
      output: {rows: logits.rows, columns: logits.columns},
      variant: callVariant(call),
      fetches: 2,
    });
  }

  protected shader(variant: CallVariant): string {
    return `
// A fragment turns four logits into shares.
${competingBlocks(variant)}
void compute(int row, int texel) {
  int competing = competingBlocks(row / queryBlocks, row % queryBlocks);
  bvec4 competes = lessThan(ivec4(0, 1, 2, 3) + 4 * texel, ivec4(competing));
  vec4 share = vec4(0.0);
  if (competes.x) {
    float logSum = readLogSums(row, 0).x;
    bool isNaN = (floatBitsToUint(logSum) & 0x7f800000u) == 0x7f800000u;
    share = isNaN ? vec4(logSum) : exp2(readLogits(row, texel) - logSum);
  }
  result0 = mix(vec4(0.0), share, competes);${variant.window ? hideBeforeWindow('0.0') : ''}
}`;
  }
}
