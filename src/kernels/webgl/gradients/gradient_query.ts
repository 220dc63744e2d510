import {unroll} from '../../unroll.js';
import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {groupText, keysText, roundText, walkInputs, walkUniforms, walkVariant} from '../attend/attend_walk.js';
import {groupRows, sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';

/** What sums of gradients are made of, in a round. */
export interface GradientRound {
  scores: RowTexture;
  products: RowTexture;
  /** Of all query rows. */
  statistics: RowTexture;
  /** The sums up to the round, if it is not the first. */
  before?: RowTexture;
}

/**
 * Stage 2 of the gradients, gradient query: sums up to and with a round of the keys, each times the gradient of its score,
 * weight · (dy · value − delta). A row a group; layer `q * n + i` of texel t: vector `t * n + i` for query row q, where n is
 * a quarter of the draw buffers.
 *
 * Scores and products of the round are drawn before; weights need no maximum, since their sums are known.
 */
export class GradientQueryProgram extends AttentionProgram<WalkVariant & {firstRound: boolean}> {
  constructor(walk: AttendWalk, firstSlot: number, {scores, products, statistics, before}: GradientRound) {
    const {call, geometry, keys, firstGroup, endGroup, slotsPerRound} = walk;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'GradientQuery',
      inputs: {scores, products, statistics, key: keys, ...(before && {before}), ...walkInputs(walk)},
      uniforms: {...walkUniforms(walk), firstSlot},
      output: {rows: endGroup - firstGroup, columns: 4 * sumTexels(geometry.headDim, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), firstRound: before === undefined},
      fetches: slotsPerRound * tilesPerBlock(geometry, tileKeys) * tileKeys * (2 + tileKeys / 4) + tileKeys,
    });
  }

  protected shader(variant: WalkVariant & {firstRound: boolean}): string {
    const {sparse, padded, tileKeys, firstRound} = variant;
    const vectors = tileKeys / 4;
    // Rows in permuted order hold zeros for padding; others hold whatever a caller left there.
    const lastKey = padded && !sparse ? 'max(keyEnd(group.head), 1) - 1' : 'keyLength - 1';
    return `
// A fragment adds up ${vectors} vectors of the keys, times the gradients of their scores for a group's four rows.
${groupText(variant)}
${roundText}
${keysText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  ${startSums(tileKeys, firstRound)}
  vec4 logSum;
  vec4 delta;
  for (int q = 0; q < 4; q++) {
    vec4 known = readStatistics(group.head * queryLength + min(group.queries[q], queryLength - 1), 0);
    logSum[q] = known.x;
    delta[q] = known.y;
  }
  int firstKey = firstKeyRow(group.head);
  int lastKey = ${lastKey};
  ivec2 at = scoresAt(row);
  int slots = slotsOfRound(group);
  int tile = 0;
  for (int slot = 0; slot < slots; slot++) {
    int block = blockOf(group, slot);
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ${unroll(vectors, (i) => `ivec4 keys${i} = firstKey + min(positionsIn(block, t, ${i}), lastKey);`, '\n      ')}
      ${unroll(
        tileKeys,
        (k) => `{
        ivec2 key = keyAt(keys${Math.floor(k / 4)}[${k % 4}]);
        vec4 weights = exp2(fetchScores(at, tile, ${k}) - logSum) * (fetchProducts(at, tile, ${k}) - delta);
        ${addVectors(tileKeys, 'fetchKey(key')}
      }`,
        '\n      ',
      )}
    }
  }
  ${unroll(tileKeys, (layer) => `result${layer} = sum${layer};`, '\n  ')}
}`;
  }
}

/** Shader text: `sum0`, `sum1`, … at zero or where the round before left them, for programs with the input `before`. */
export function startSums(tileKeys: number, firstRound: boolean): string {
  return firstRound
    ? unroll(tileKeys, (layer) => `vec4 sum${layer} = vec4(0.0);`, '\n  ')
    : `ivec2 old = beforeAt(row);
  ${unroll(tileKeys, (layer) => `vec4 sum${layer} = fetchBefore(old, texel, ${layer});`, '\n  ')}`;
}

/** Shader text: adds the vectors of a texel of a row, times `weights`, to the sums of four rows. */
export function addVectors(tileKeys: number, fetch: string): string {
  const vectors = tileKeys / 4;
  return unroll(
    vectors,
    (i) => `vec4 x${i} = ${fetch}, ${vectors} * texel + ${i}, 0);
        ${unroll(groupRows, (q) => `sum${q * vectors + i} += weights[${q}] * x${i};`, '\n        ')}`,
    '\n        ',
  );
}

/** The sums of a range of groups as rows, `[batch * heads * queryLength]` of `dim` values, times a factor. */
export class GradientRowsProgram extends AttentionProgram<{tileKeys: number}> {
  constructor(walk: AttendWalk, sums: RowTexture, {dim, factor}: {dim: number; factor: number}) {
    const {call, geometry, endGroup} = walk;
    const {batch, heads, queryLength} = geometry;
    super({
      name: 'GradientRows',
      inputs: {sums},
      uniforms: {...walkUniforms({...walk, plan: undefined}), rowsPerHead: queryLength, endGroup},
      floats: {factor},
      output: {rows: batch * heads * queryLength, columns: dim},
      variant: {tileKeys: call.context.drawBuffers},
      fetches: 1,
    });
  }

  protected shader({tileKeys}: {tileKeys: number}): string {
    const vectors = tileKeys / 4;
    return `
// A fragment copies one vector of a row, if its group belongs to the range.
void compute(int row, int texel) {
  int head = divide(row, rowsPerHead);
  int position = row - head * rowsPerHead;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int rowOfGroup = divide(inBlock, groupsPerBlock);
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock - rowOfGroup * groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  ivec2 at = sumsAt(group - firstGroup);
  result0 = factor * fetchSums(at, texel / ${vectors}, rowOfGroup * ${vectors} + texel % ${vectors});
}`;
  }
}
