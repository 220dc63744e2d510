import {unroll} from '../../unroll.js';
import type {ScoresVariant} from '../attend/attend_passes.js';
import {RoundScoresProgram, scoreFactors, slotOfTile} from '../attend/attend_passes.js';
import type {AttendWalk, WalkVariant} from '../attend/attend_walk.js';
import {groupAt, listedBlockOf, listedSlotCount, positionsIn, roundText, WalkProgram} from '../attend/attend_walk.js';
import {maskByKeyText} from '../glsl/attention_mask.js';
import {keyEndOf} from '../glsl/key_lengths.js';
import {addRows, startSums} from '../glsl/row_sums.js';
import {formedScores, slopeOfHead} from '../glsl/score_forms.js';
import {maskedScore, orNone, writeScores} from '../glsl/score_tile.js';
import {sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {GradientRound} from './gradient_walk.js';
import {sharesOf} from './gradient_walk.js';

/*
 * Stage 3 of the gradients, gradient key. Its walks are transposed: a group is four keys of a block, in permuted order where
 * there is a plan, and walks over the query blocks that see its block, in tiles of queries; the lists of a plan are query
 * lists (`query_lists.ts`). Each query head has an order of its own, so each has groups of its own; the heads that share keys
 * are added up at the end (`sum_heads.ts`).
 *
 * Sizes are those of the walk: `queryLength`, `blockSize` and `queryBlocks` of what its groups are, keys, and `keyLength`,
 * `keyBlockSize` and `keyBlocks` of what they walk over, queries.
 */

/** Shader text: which keys a group has, and which query blocks it walks over. */
const keyGroupText = ({causal, sparse, window}: WalkVariant) => `${groupAt('keys')}
${sparse ? `${listedSlotCount}\n${listedBlockOf}` : visibleSlots(causal, window)}${roundText}${positionsIn}`;

function visibleSlots(causal: boolean, window?: true): string {
  const firstRow = `group.block * blockSize - queryOffset${causal ? '' : ' - window + 1'}`;
  const first = causal || window ? `min(divide(max(${firstRow}, 0), keyBlockSize), keyBlocks)` : '0';
  // Up to the last row in whose window the last key of the block stands.
  const endRow = 'clamp((group.block + 1) * blockSize - 1 + window - queryOffset, 0, keyLength)';
  const count = window
    ? `max(0, divide(${endRow} + keyBlockSize - 1, keyBlockSize) - firstQueryBlock(group))`
    : 'keyBlocks - firstQueryBlock(group)';
  return `int firstQueryBlock(Group group) {
  return ${first};
}
int slotCount(Group group) {
  return ${count};
}
int blockOf(Group group, int slot) {
  return firstQueryBlock(group) + firstSlot + slot;
}`;
}

/** Scores of a round, transposed: tiles of queries with groups of keys. */
export class KeyWalkScoresProgram extends RoundScoresProgram {
  constructor(walk: AttendWalk, firstSlot: number, factors = scoreFactors(walk)) {
    const {geometry, context} = walk.call;
    // Key indices and masks stand in the order of the tiles of a block of keys.
    const orderTiles = tilesPerBlock(geometry, context.drawBuffers);
    // What a group has four rows of is its query.
    const {query: key, key: query} = factors;
    super('KeyWalkScores', walk, {firstSlot, orderTiles}, {...factors, query, key});
  }

  protected shader(variant: ScoresVariant): string {
    const {causal, sparse, padded, tileKeys, dim, forms, mask} = variant;
    const {text = '', hidden = maskedScore} = formedScores(causal, forms) ?? {};
    const lastSeen = causal ? 'position + queryOffset' : padded ? 'paddingPosition - 1' : undefined;
    return `
// A fragment computes the scores of a group of four keys with one tile of ${tileKeys} queries, each query a layer.
${keyGroupText(variant)}
${orNone}${padded ? keyEndOf('queryLength') : ''}
// Original indices of the group's keys${padded ? '; padding stands past every query' : ''}.
ivec4 origins;
${padded ? 'const int paddingPosition = 1 << 30;\n' : ''}${text && `${text.trimStart()}\n`}vec4 visible(int position, ivec4 keys, vec4 scores) {
  if (position < 0) {
    return vec4(${hidden});
  }${forms ? '\n  scores = formed(scores, position + queryOffset - origins);' : ''}
  return ${lastSeen ? `mix(scores, vec4(${hidden}), greaterThan(origins, ivec4(${lastSeen})))` : 'scores'};
}${mask ? maskByKeyText(mask, tileKeys) : ''}
void compute(int row, int tile) {
  ${slotOfTile}
  ivec4 queries = group.keys;
  ${
    sparse
      ? `int head = group.head - firstHead;
  ivec4 inBlock = queries - group.block * blockSize;
  for (int i = 0; i < 4; i++) {
    int key = divide(inBlock[i], orderTiles);
    int column = (inBlock[i] - key * orderTiles) * ${tileKeys} + key;
    origins[i] = int(readKeyIndices(group.head * queryBlocks + group.block, column / 4)[column % 4]);
  }`
      : `int head = (group.head / heads) * keyValueHeads + (group.head % heads) / (heads / keyValueHeads);
  origins = queries;`
  }${padded ? hidePadding : ''}
  ${slopeOfHead(forms)}int firstKey = group.head * keyLength;
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

/** Shader text for the body of `compute`, after `writeScores`: brings the scores under the mask. */
const maskKeyScores = (tileKeys: number) => `
  ${unroll(tileKeys, (k) => `result${k} = masked(result${k}, maskOf(group.head, ivec4(keys${Math.floor(k / 4)}[${k % 4}]), origins));`, '\n  ')}`;

interface KeyVariant {
  firstRound: boolean;
  of: 'key' | 'value';
  /** Whether there is a soft cap, for the gradient of keys. */
  capped?: true;
}

/**
 * Sums up to and with a round, of the keys: of the queries, each times the gradient of its score; or of their values: of dy,
 * each times its weight. Layers as `GradientQueryProgram` has them.
 */
export class GradientKeyProgram extends WalkProgram<KeyVariant> {
  constructor(walk: AttendWalk, of: 'key' | 'value', statistics: RowTexture, round: GradientRound) {
    const {firstSlot, scores, products, derivatives, before} = round;
    const {call, geometry, firstGroup, endGroup, slotsPerRound} = walk;
    const layers = call.context.drawBuffers;
    const [rows, dim] = of === 'key' ? [call.query, geometry.headDim] : [call.dy, geometry.valueDim];
    super(walk, {
      name: 'GradientKey',
      inputs: {
        scores,
        ...(of === 'key' && {products, ...(derivatives && {derivatives})}),
        statistics,
        rows,
        ...(before && {before}),
      },
      uniforms: {firstSlot},
      output: {rows: endGroup - firstGroup, columns: 4 * sumTexels(dim, layers), layers},
      variant: {firstRound: before === undefined, of, ...(of === 'key' && derivatives && {capped: true})},
      fetches: slotsPerRound * tilesPerBlock(geometry, layers) * layers * (3 + layers / 4) + layers,
    });
  }

  protected shader(variant: WalkVariant & KeyVariant): string {
    const {tileKeys, firstRound, of, capped} = variant;
    const slope = (k: number) => (capped ? ` * fetchDerivatives(at, tile, ${k})` : '');
    const gradient = (k: number) => (of === 'key' ? ` * (fetchProducts(at, tile, ${k}) - known.y)${slope(k)}` : '');
    const weights = (k: number) => `vec4 known = readStatistics(i, 0);
        ${sharesOf(k, 'known.x')}
        vec4 weights = shares${gradient(k)};`;
    return `
// A fragment adds up ${tileKeys / 4} vectors of the queries' rows, weighted for each of a group's four keys.
${keyGroupText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  ${startSums(tileKeys, firstRound)}
  ivec2 at = scoresAt(row);
  int slots = slotsOfRound(group);
  ${addRows({tileKeys, first: 'group.head * keyLength', last: 'keyLength - 1', weights})}
}`;
  }
}
