import {unroll} from '../../unroll.js';
import type {AttentionMask} from '../glsl/attention_mask.js';
import {maskByKeyText, maskScores, maskText, maskUniforms} from '../glsl/attention_mask.js';
import {addRows} from '../glsl/row_sums.js';
import type {ScoreForms} from '../glsl/score_forms.js';
import {capFloats, formedScores, scoreForms, slopeOfHead} from '../glsl/score_forms.js';
import {logitScale, maskedScore, noScores, takeTile, visibleScores, writeScores} from '../glsl/score_tile.js';
import {sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {AttendWalk, WalkVariant} from './attend_walk.js';
import {groupText, keysText, lastKey, originsText, roundText, WalkProgram} from './attend_walk.js';

/** What is known of each group of the range, or each part `[group, part]`, after a number of rounds. */
export interface RunningSums {
  /** Maximum of each row's scores (layer 0), and the sum of exp2(score − maximum) (layer 1). A texel a row. */
  statistics: RowTexture;
  /** Sum of exp2(score − maximum) times value, if there are values: layers as `AttendValuesProgram` writes them. */
  values?: RowTexture;
}

/** Rows whose products a pass draws: queries and keys, or, for the gradients, what stands in their places. */
export interface Factors {
  query: RowTexture;
  key: RowTexture;
  /** Values a row. */
  dim: number;
  scale: number;
  forms?: ScoreForms;
  mask?: AttentionMask;
}

/** Those of scores. */
export const scoreFactors = ({call, keys}: AttendWalk): Factors => ({
  query: call.query,
  key: keys,
  dim: call.geometry.headDim,
  scale: call.scale,
  forms: scoreForms(call),
  mask: call.mask,
});

/** Those of the derivatives of scores by what a soft cap is given. */
export const derivativeFactors = (walk: AttendWalk): Factors => ({
  ...scoreFactors(walk),
  forms: {softCap: true, derivative: true},
  mask: undefined,
});

interface Products {
  dim: number;
  forms?: ScoreForms;
  /** The mask's dtype. */
  mask?: string;
}

export type ScoresVariant = WalkVariant & Products;

/** Products of a round under the masks. A row a group; texel t, layer i: row i of tile t, with the group's four rows. */
export abstract class RoundScoresProgram extends WalkProgram<Products> {
  /** @param factors by their places in the walk: what a group has four rows of is the query. */
  constructor(name: string, walk: AttendWalk, uniforms: Uniforms, {query, key, dim, scale, forms, mask}: Factors) {
    const {call, plan, geometry, firstGroup, endGroup, slotsPerRound} = walk;
    const layers = call.context.drawBuffers;
    const columns = 4 * slotsPerRound * tilesPerBlock(geometry, layers);
    super(walk, {
      name,
      inputs: {
        ...{query, key},
        ...(plan && {keyIndices: plan.keyIndices}),
        ...(forms?.slopes && {alibiSlopes: call.alibiSlopes!}),
        ...(mask && {mask: mask.rows}),
      },
      uniforms: {...(mask && maskUniforms(mask, call.geometry, layers)), ...uniforms},
      floats: {...logitScale(scale), ...(forms?.softCap && capFloats(call))},
      output: {rows: endGroup - firstGroup, columns, layers},
      variant: {dim, forms, mask: mask?.dtype},
      fetches: (4 + layers) * Math.ceil(dim / 4) + (mask ? 4 * layers : 0),
    });
  }
}

/** Shader text for the body of `compute`: the group and the slot of a tile of scores. */
export const slotOfTile = `Group group = groupAt(firstGroup + row);
  int slot = divide(tile, tilesPerBlock);
  // Nobody reads the tiles that a group does not have.
  if (slot >= slotsOfRound(group)) {
    discard;
  }`;

/** Scores of a round: tiles of keys with groups of query rows. */
export class AttendScoresProgram extends RoundScoresProgram {
  constructor(walk: AttendWalk, firstSlot: number, factors = scoreFactors(walk)) {
    super('AttendScores', walk, {firstSlot}, factors);
  }

  protected shader(variant: ScoresVariant): string {
    const {causal, sparse, tileKeys, dim, forms, mask, packed} = variant;
    // In the order of a plan keys stand elsewhere than in the mask.
    const textOfMask = sparse ? maskByKeyText : maskText;
    return `
// A fragment computes the scores of a group with one tile of ${tileKeys} keys, each key a layer.
${groupText(variant)}
${roundText}
${keysText(variant)}
${originsText(variant)}
${visibleScores(causal, formedScores(causal, forms))}${mask ? textOfMask(mask, tileKeys) : ''}
void compute(int row, int tile) {
  ${slotOfTile}
  int head = group.head;
  ivec4 queries = group.queries;
  ${packed ? 'ivec4 places = queries % rowsOfHead;\n  ' : ''}${slopeOfHead(forms)}int firstKey = firstKeyRow(head);
  int block = blockOf(group, slot);
  int tileOfBlock = tile - slot * tilesPerBlock;
  ${unroll(
    tileKeys / 4,
    (i) => `ivec4 positions${i} = positionsIn(block, tileOfBlock, ${i});
  ivec4 keys${i} = originsOf(group, block, tileOfBlock, ${i}, positions${i});`,
    '\n  ',
  )}
${writeScores(dim, tileKeys, {byKey: mask !== undefined && sparse, ...(packed && {places: 'places'})})}${mask && !sparse ? maskScores(tileKeys) : ''}
}`;
  }
}

/** Slots of a round that a fragment walks over. */
const slotsOfPart = ({slotsPerRound, parts}: AttendWalk) => Math.ceil(slotsPerRound / parts);

/** Shader text: the group's row among the scores and, where groups have parts, which part of it a row of sums is. */
const partText = (split: boolean) =>
  split
    ? `int groupRow = divide(row, parts);
  int part = row - groupRow * parts;`
    : 'int groupRow = row;';

const emptyState = `
// The first round leaves every group with sums, those of no key where it has no slot.`;

/** Maximum (layer 0) and sum (layer 1) of each row up to and with a round. */
export class AttendStatisticsProgram extends WalkProgram<{firstRound: boolean}> {
  constructor(walk: AttendWalk, firstSlot: number, scores: RowTexture, before?: RowTexture) {
    const {call, geometry, firstGroup, endGroup, parts} = walk;
    const tileKeys = call.context.drawBuffers;
    super(walk, {
      name: 'AttendStatistics',
      inputs: {scores, ...(before && {before})},
      uniforms: {firstSlot},
      output: {rows: (endGroup - firstGroup) * parts, columns: 4, layers: 2},
      variant: {firstRound: before === undefined},
      fetches: slotsOfPart(walk) * tilesPerBlock(geometry, tileKeys) * tileKeys,
    });
  }

  protected shader(variant: WalkVariant & {firstRound: boolean}): string {
    const {tileKeys, firstRound, split} = variant;
    return `
// A fragment walks over the scores of a group's four rows, a component each: an online softmax, tile by tile.${firstRound ? emptyState : ''}
${groupText(variant)}
${roundText}
void compute(int row, int texel) {
  ${partText(split)}
  int tiles = slotsOfRound(groupAt(firstGroup + groupRow)) * tilesPerBlock;
  ${
    firstRound
      ? noScores
      : `if (tiles == 0) {
    discard;
  }
  ivec2 old = beforeAt(row);
  vec4 rowMax = fetchBefore(old, 0, 0);
  vec4 rowSum = fetchBefore(old, 0, 1);`
  }
  ivec2 at = scoresAt(groupRow);
  ${
    split
      ? `for (int first = part * tilesPerBlock; first < tiles; first += parts * tilesPerBlock)
  for (int tile = first; tile < first + tilesPerBlock; tile++)`
      : 'for (int tile = 0; tile < tiles; tile++)'
  } {
    ${takeTile(tileKeys, 'tile')}
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/**
 * Weighted sums of values up to and with a round. A row a group; layer `q * n + i` of texel t: vector `t * n + i` of the
 * value for query row q, where n is a quarter of the draw buffers.
 */
export class AttendValuesProgram extends WalkProgram<{firstRound: boolean}> {
  constructor(walk: AttendWalk, firstSlot: number, scores: RowTexture, statistics: RowTexture, before?: RunningSums) {
    const {call, geometry, values, firstGroup, endGroup, parts} = walk;
    const tileKeys = call.context.drawBuffers;
    const columns = 4 * sumTexels(geometry.valueDim, tileKeys);
    super(walk, {
      name: 'AttendValues',
      inputs: {
        scores,
        statistics,
        rows: values!,
        ...(before && {beforeStatistics: before.statistics, beforeValues: before.values!}),
      },
      uniforms: {firstSlot},
      output: {rows: (endGroup - firstGroup) * parts, columns, layers: tileKeys},
      variant: {firstRound: before === undefined},
      fetches: slotsOfPart(walk) * tilesPerBlock(geometry, tileKeys) * tileKeys * (1 + tileKeys / 4) + tileKeys,
    });
  }

  protected shader(variant: WalkVariant & {firstRound: boolean}): string {
    const {split, tileKeys, firstRound} = variant;
    const vectors = tileKeys / 4;
    const layers = (text: (layer: number) => string) => unroll(tileKeys, text, '\n  ');
    const weights = (k: number) => `vec4 scores = fetchScores(at, tile, ${k});
        vec4 weights = exp2(scores - rowMax);
        bvec4 unseen = equal(scores, vec4(${maskedScore}));`;
    return `
// A fragment adds up ${vectors} vectors of the values, weighted for each of a group's four rows: ${1 + vectors} fetches a key for
// ${tileKeys} products of vectors.${firstRound ? emptyState : ''}
${groupText(variant)}
${roundText}
${keysText(variant)}
void compute(int row, int texel) {
  ${partText(split)}
  Group group = groupAt(firstGroup + groupRow);
  int slots = slotsOfRound(group);${
    firstRound
      ? ''
      : `
  if (slots == 0) {
    discard;
  }`
  }
  vec4 rowMax = readStatistics(row, 0);
  ${
    firstRound
      ? layers((layer) => `vec4 sum${layer} = vec4(0.0);`)
      : `// Sums so far are brought to the new maximum.
  vec4 shrink = exp2(readBeforeStatistics(row, 0) - rowMax);
  ivec2 old = beforeValuesAt(row);
  ${layers((i) => `vec4 sum${i} = shrink[${Math.floor(i / vectors)}] * fetchBeforeValues(old, texel, ${i});`)}`
  }
  ivec2 at = scoresAt(groupRow);
  ${addRows({tileKeys, split, first: 'firstKeyRow(group.head)', last: lastKey(variant), weights})}
}`;
  }
}
