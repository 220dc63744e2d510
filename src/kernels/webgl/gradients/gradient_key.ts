import {unroll} from '../../unroll.js';
import type {ScoresVariant} from '../attend/attend_passes.js';
import {scoreFactors} from '../attend/attend_passes.js';
import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {walkUniforms, walkVariant} from '../attend/attend_walk.js';
import {maskedText, maskUniforms} from '../glsl/attention_mask.js';
import {keyEndOf, keyLengthsInput} from '../glsl/key_lengths.js';
import {logitScale, maskedScore, orNone, writeScores} from '../glsl/score_tile.js';
import {sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {GradientRound} from './gradient_query.js';
import {addVectors, startSums} from './gradient_query.js';

export interface KeyWalk extends AttendWalk {
  /** With a plan, for each block of keys the query blocks that attend to it (see `query_lists.ts`). */
  queryLists?: RowTexture;
}

/*
 * Stage 3 of the gradients, gradient key. Its walks are transposed: a group is four keys of a block, in permuted order where
 * there is a plan, and walks over the query blocks that see its block, in tiles of queries. Each query head has an order of
 * its own, so each has groups of its own; the heads that share keys are added up at the end (`sum_heads.ts`).
 *
 * The uniforms `queryLength`, `keyLength`, `blockSize` and `keyBlockSize` are those of the walk: of what its groups are, keys,
 * and of what they walk over, queries. `keyBlocks` and `queryBlocks` go by their names.
 */

function keyWalkUniforms(walk: KeyWalk, firstSlot: number): Uniforms {
  const {keyBlocks, queryBlocks, queryOffset} = walk.call.geometry;
  return {
    ...walkUniforms({...walk, plan: undefined}),
    firstSlot,
    keyBlocks,
    queryBlocks,
    queryOffset,
    // Key indices and masks stand in the order of the tiles of a block of keys.
    orderTiles: tilesPerBlock(walk.call.geometry, walk.call.context.drawBuffers),
  };
}

/** Shader text: which keys a group has, and which query blocks it walks over. */
function keyGroupText({causal, sparse}: WalkVariant): string {
  return `
struct Group {
  int head;
  int block;
  ivec4 keys;
};
Group groupAt(int group) {
  int blockOfHead = divide(group, groupsPerBlock);
  int block = divide(blockOfHead, walkHeads);
  int inBlock = group - blockOfHead * groupsPerBlock;
  ivec4 keys = ivec4(0, 1, 2, 3) * groupsPerBlock + block * blockSize + inBlock;
  return Group(firstHead + blockOfHead - block * walkHeads, block, keys);
}
${
  sparse
    ? `int slotCount(Group group) {
  return int(readQueryLists(group.head * keyBlocks + group.block, 0).x);
}
int blockOf(Group group, int slot) {
  int entry = 1 + firstSlot + slot;
  return int(readQueryLists(group.head * keyBlocks + group.block, entry / 4)[entry % 4]);
}`
    : `int firstQueryBlock(Group group) {
  return ${causal ? 'min(divide(max(group.block * blockSize - queryOffset, 0), keyBlockSize), queryBlocks)' : '0'};
}
int slotCount(Group group) {
  return queryBlocks - firstQueryBlock(group);
}
int blockOf(Group group, int slot) {
  return firstQueryBlock(group) + firstSlot + slot;
}`
}
int slotsOfRound(Group group) {
  return clamp(slotCount(group) - firstSlot, 0, slotsPerRound);
}
ivec4 positionsIn(int block, int tile, int four) {
  return block * keyBlockSize + tile + (ivec4(0, 1, 2, 3) + 4 * four) * tilesPerBlock;
}`;
}

/** Scores of a round, transposed. A row a group; texel t, layer i: query i of tile t, with the group's four keys. */
export class KeyWalkScoresProgram extends AttentionProgram<ScoresVariant> {
  constructor(walk: KeyWalk, firstSlot: number, {query, key, dim, scale, mask} = scoreFactors(walk)) {
    const {call, plan, queryLists, geometry, firstGroup, endGroup, slotsPerRound} = walk;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'KeyWalkScores',
      // Named by their places in a walk of queries: what a group has four of is its query.
      inputs: {
        query: key,
        key: query,
        ...(queryLists && {queryLists}),
        ...(plan && {keyIndices: plan.keyIndices}),
        ...keyLengthsInput(call),
        ...(mask && {mask: mask.rows}),
      },
      uniforms: {...keyWalkUniforms(walk, firstSlot), ...(mask && maskUniforms(mask, call.geometry))},
      floats: logitScale(scale),
      output: {rows: endGroup - firstGroup, columns: 4 * slotsPerRound * tilesPerBlock(geometry, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), dim, mask: mask?.dtype},
      fetches: (4 + tileKeys) * Math.ceil(dim / 4) + (mask ? 4 * tileKeys : 0),
    });
  }

  protected shader(variant: ScoresVariant): string {
    const {causal, sparse, padded, tileKeys, dim, mask} = variant;
    const lastSeen = causal ? 'position + queryOffset' : padded ? 'paddingPosition - 1' : undefined;
    return `
// A fragment computes the scores of a group of four keys with one tile of ${tileKeys} queries, each query a layer.
${keyGroupText(variant)}
${orNone}${padded ? keyEndOf('queryLength') : ''}
// Original indices of the group's keys${padded ? '; padding stands past every query' : ''}.
ivec4 origins;
${padded ? 'const int paddingPosition = 1 << 30;\n' : ''}vec4 visible(int position, ivec4 keys, vec4 scores) {
  if (position < 0) {
    return vec4(${maskedScore});
  }
  return ${lastSeen ? `mix(scores, vec4(${maskedScore}), greaterThan(origins, ivec4(${lastSeen})))` : 'scores'};
}${mask ? maskedText(mask) + maskOfKeys(tileKeys) : ''}
void compute(int row, int tile) {
  Group group = groupAt(firstGroup + row);
  int slot = divide(tile, tilesPerBlock);
  // Nobody reads the tiles that a group does not have.
  if (slot >= slotsOfRound(group)) {
    discard;
  }
  ivec4 queries = group.keys;
  ${
    sparse
      ? `int head = group.head - firstHead;
  ivec4 inBlock = queries - group.block * blockSize;
  for (int i = 0; i < 4; i++) {
    int key = divide(inBlock[i], orderTiles);
    int column = (inBlock[i] - key * orderTiles) * ${tileKeys} + key;
    origins[i] = int(readKeyIndices(group.head * keyBlocks + group.block, column / 4)[column % 4]);
  }`
      : `int head = (group.head / heads) * keyHeads + (group.head % heads) / (heads / keyHeads);
  origins = queries;`
  }${padded ? hidePadding : ''}
  int firstKey = group.head * keyLength;
  int block = blockOf(group, slot);
  int tileOfBlock = tile - slot * tilesPerBlock;
  ${unroll(
    tileKeys / 4,
    (i) => `ivec4 positions${i} = positionsIn(block, tileOfBlock, ${i});
  ivec4 keys${i} = orNone(positions${i}, min((block + 1) * keyBlockSize, keyLength));`,
    '\n  ',
  )}
${writeScores(dim, tileKeys)}${mask ? maskKeyScores(tileKeys) : ''}
}`;
  }
}

const hidePadding = `
  origins = ivec4(mix(vec4(origins), vec4(paddingPosition), greaterThanEqual(origins, ivec4(keyEnd(group.head)))));`;

/** Shader text: `maskOfKeys(…)`, what the mask holds for a query and a group of keys: these stand in different tiles. */
const maskOfKeys = (tileKeys: number) => `
vec4 maskOfKeys(Group group, int query) {
  int row = (group.head / heads) * maskBatchStep + (group.head % heads) * maskHeadStep + max(query, 0) * maskRowStep;
  if (maskBlockStep == 0) {
    return readMask(row, 0).xxxx;
  }
  vec4 four;
  for (int i = 0; i < 4; i++) {
    // Past the end of the block there are no keys.
    int inBlock = min(group.keys[i] - group.block * blockSize, blockSize - 1);
    int key = divide(inBlock, orderTiles);
    int column = (inBlock - key * orderTiles) * ${tileKeys} + key;
    four[i] = readMask(row + group.block, column / 4)[column % 4];
  }
  return four;
}`;

/** Shader text for the body of `compute`, after `writeScores`: brings the scores under the mask. */
const maskKeyScores = (tileKeys: number) => `
  ${unroll(tileKeys, (k) => `result${k} = masked(result${k}, maskOfKeys(group, keys${Math.floor(k / 4)}[${k % 4}]));`, '\n  ')}`;

interface GradientKeyVariant extends WalkVariant {
  firstRound: boolean;
  of: KeyGradient;
}

/** Of what a gradient is. */
export type KeyGradient = 'key' | 'value';

type KeyGradientRound = GradientRound & {of: KeyGradient};

/**
 * Sums up to and with a round, of the keys: of the queries, each times the gradient of its score; or of their values: of dy,
 * each times its weight. Layers as `GradientQueryProgram` has them.
 */
export class GradientKeyProgram extends AttentionProgram<GradientKeyVariant> {
  constructor(walk: KeyWalk, firstSlot: number, {of, scores, products, statistics, before}: KeyGradientRound) {
    const {call, queryLists, geometry, firstGroup, endGroup, slotsPerRound} = walk;
    const tileKeys = call.context.drawBuffers;
    const [rows, dim] = of === 'key' ? [call.query, geometry.headDim] : [call.dy, geometry.valueDim];
    super({
      name: 'GradientKey',
      inputs: {
        scores,
        ...(of === 'key' && {products}),
        statistics,
        rows,
        ...(before && {before}),
        ...(queryLists && {queryLists}),
      },
      uniforms: keyWalkUniforms(walk, firstSlot),
      output: {rows: endGroup - firstGroup, columns: 4 * sumTexels(dim, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), firstRound: before === undefined, of},
      fetches: slotsPerRound * tilesPerBlock(geometry, tileKeys) * tileKeys * (3 + tileKeys / 4) + tileKeys,
    });
  }

  protected shader(variant: GradientKeyVariant): string {
    const {tileKeys, firstRound, of} = variant;
    const vectors = tileKeys / 4;
    const weights = 'exp2(fetchScores(at, tile, K) - known.x)';
    const gradients = `${weights} * (fetchProducts(at, tile, K) - known.y)`;
    return `
// A fragment adds up ${vectors} vectors of the queries' rows, weighted for each of a group's four keys.
${keyGroupText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  ${startSums(tileKeys, firstRound)}
  int firstRowOfHead = group.head * keyLength;
  ivec2 at = scoresAt(row);
  int slots = slotsOfRound(group);
  int tile = 0;
  for (int slot = 0; slot < slots; slot++) {
    int block = blockOf(group, slot);
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ${unroll(vectors, (i) => `ivec4 rows${i} = firstRowOfHead + min(positionsIn(block, t, ${i}), keyLength - 1);`, '\n      ')}
      ${unroll(
        tileKeys,
        (k) => `{
        int i = rows${Math.floor(k / 4)}[${k % 4}];
        ivec2 rowAt = rowsAt(i);
        vec4 known = readStatistics(i, 0);
        vec4 weights = ${(of === 'key' ? gradients : weights).replaceAll('K', String(k))};
        ${addVectors(tileKeys, 'fetchRows(rowAt')}
      }`,
        '\n      ',
      )}
    }
  }
  ${unroll(tileKeys, (layer) => `result${layer} = sum${layer};`, '\n  ')}
}`;
  }
}
