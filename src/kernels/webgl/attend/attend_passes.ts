import {unroll} from '../../unroll.js';
import type {AttentionMask} from '../glsl/attention_mask.js';
import {maskScores, maskText, maskUniforms} from '../glsl/attention_mask.js';
import {logitScale, noMaximum, takeTile, visibleScores, writeScores} from '../glsl/score_tile.js';
import {groupRows, sumTexels, tilesPerBlock} from '../glsl/tiles.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {AttendWalk, WalkVariant} from './attend_walk.js';
import {groupText, keysText, originsText, roundText, walkInputs, walkUniforms, walkVariant} from './attend_walk.js';

/** What is known of each group of the range, or each part `[group, part]`, after a number of rounds. */
export interface RunningSums {
  /** Maximum of each row's scores (layer 0), and the sum of exp2(score − maximum) (layer 1). A texel a row. */
  statistics: RowTexture;
  /** Sum of exp2(score − maximum) times value: layers as `AttendValuesProgram` writes them. */
  values: RowTexture;
}

/** Rows whose products a pass draws: queries and keys, or, for the gradients, what stands in their places. */
export interface Factors {
  query: RowTexture;
  key: RowTexture;
  /** Values a row. */
  dim: number;
  scale: number;
  mask?: AttentionMask;
}

/** Those of scores. */
export const scoreFactors = ({call, keys}: AttendWalk): Factors => ({
  query: call.query,
  key: keys,
  dim: call.geometry.headDim,
  scale: call.scale,
  mask: call.mask,
});

export interface ScoresVariant extends WalkVariant {
  dim: number;
  /** The mask's dtype. */
  mask?: string;
}

/** Scores of a round. A row a group; texel t, layer i: key i of tile t, with the group's four query rows. */
export class AttendScoresProgram extends AttentionProgram<ScoresVariant> {
  constructor(walk: AttendWalk, firstSlot: number, {query, key, dim, scale, mask} = scoreFactors(walk)) {
    const {call, plan, geometry, firstGroup, endGroup, slotsPerRound} = walk;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'AttendScores',
      inputs: {
        query,
        key,
        ...walkInputs(walk),
        ...(plan && {keyIndices: plan.keyIndices}),
        ...(mask && {mask: mask.rows}),
      },
      uniforms: {...walkUniforms(walk), ...(mask && maskUniforms(mask, geometry)), firstSlot},
      floats: logitScale(scale),
      output: {rows: endGroup - firstGroup, columns: 4 * slotsPerRound * tilesPerBlock(geometry, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), dim, mask: mask?.dtype},
      fetches: (4 + tileKeys) * Math.ceil(dim / 4) + (mask ? tileKeys : 0),
    });
  }

  protected shader(variant: ScoresVariant): string {
    const {causal, tileKeys, dim, mask} = variant;
    return `
// A fragment computes the scores of a group with one tile of ${tileKeys} keys, each key a layer.
${groupText(variant)}
${roundText}
${keysText(variant)}
${originsText(variant)}
${visibleScores(causal)}${mask ? maskText(mask, tileKeys) : ''}
void compute(int row, int tile) {
  Group group = groupAt(firstGroup + row);
  int slot = divide(tile, tilesPerBlock);
  // Nobody reads the tiles that a group does not have.
  if (slot >= slotsOfRound(group)) {
    discard;
  }
  int head = group.head;
  ivec4 queries = group.queries;
  int firstKey = firstKeyRow(head);
  int block = blockOf(group, slot);
  int tileOfBlock = tile - slot * tilesPerBlock;
  ${unroll(
    tileKeys / 4,
    (i) => `ivec4 positions${i} = positionsIn(block, tileOfBlock, ${i});
  ivec4 keys${i} = originsOf(group, block, tileOfBlock, ${i}, positions${i});`,
    '\n  ',
  )}
${writeScores(dim, tileKeys)}${mask ? maskScores(tileKeys) : ''}
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

interface StatisticsVariant extends WalkVariant {
  firstRound: boolean;
}

/** Maximum (layer 0) and sum (layer 1) of each row up to and with a round. */
export class AttendStatisticsProgram extends AttentionProgram<StatisticsVariant> {
  constructor(walk: AttendWalk, firstSlot: number, {scores, before}: {scores: RowTexture; before?: RowTexture}) {
    const {call, geometry, firstGroup, endGroup, parts} = walk;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'AttendStatistics',
      inputs: {scores, ...(before && {before}), ...walkInputs(walk)},
      uniforms: {...walkUniforms(walk), firstSlot},
      output: {rows: (endGroup - firstGroup) * parts, columns: 4},
      layers: 2,
      variant: {...walkVariant(walk), firstRound: before === undefined},
      fetches: slotsOfPart(walk) * tilesPerBlock(geometry, tileKeys) * tileKeys,
    });
  }

  protected shader(variant: StatisticsVariant): string {
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
      ? `vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);`
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
export class AttendValuesProgram extends AttentionProgram<StatisticsVariant> {
  constructor(
    walk: AttendWalk,
    firstSlot: number,
    {scores, statistics, before}: {scores: RowTexture; statistics: RowTexture; before?: RunningSums},
  ) {
    const {call, geometry, values, firstGroup, endGroup, parts} = walk;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'AttendValues',
      inputs: {
        scores,
        statistics,
        value: values,
        ...(before && {beforeStatistics: before.statistics, beforeValues: before.values}),
        ...walkInputs(walk),
      },
      uniforms: {...walkUniforms(walk), firstSlot},
      output: {rows: (endGroup - firstGroup) * parts, columns: 4 * sumTexels(geometry.valueDim, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), firstRound: before === undefined},
      fetches: slotsOfPart(walk) * tilesPerBlock(geometry, tileKeys) * tileKeys * (1 + tileKeys / 4) + tileKeys,
    });
  }

  protected shader(variant: StatisticsVariant): string {
    const {sparse, padded, split, tileKeys, firstRound} = variant;
    const vectors = tileKeys / 4;
    // Rows in permuted order hold zeros for padding; others hold whatever a caller left there.
    const lastKey = padded && !sparse ? 'max(keyEnd(group.head), 1) - 1' : 'keyLength - 1';
    const layers = (text: (layer: number, q: number, i: number) => string, indent: string) =>
      unroll(tileKeys, (layer) => text(layer, Math.floor(layer / vectors), layer % vectors), `\n${indent}`);
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
      ? layers((layer) => `vec4 sum${layer} = vec4(0.0);`, '  ')
      : `// Sums so far are brought to the new maximum.
  vec4 shrink = exp2(readBeforeStatistics(row, 0) - rowMax);
  ivec2 old = beforeValuesAt(row);
  ${layers((layer, q) => `vec4 sum${layer} = shrink[${q}] * fetchBeforeValues(old, texel, ${layer});`, '  ')}`
  }
  int firstKey = firstKeyRow(group.head);
  int lastKey = ${lastKey};
  ivec2 at = scoresAt(groupRow);
  ${
    split
      ? `for (int slot = part; slot < slots; slot += parts) {
    int tile = slot * tilesPerBlock;`
      : `int tile = 0;
  for (int slot = 0; slot < slots; slot++) {`
  }
    int block = blockOf(group, slot);
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ${unroll(vectors, (i) => `ivec4 keys${i} = firstKey + min(positionsIn(block, t, ${i}), lastKey);`, '\n      ')}
      ivec2 key;
      vec4 weights;
      vec4 x;
      ${unroll(
        tileKeys,
        (k) => `key = valueAt(keys${Math.floor(k / 4)}[${k % 4}]);
      weights = exp2(fetchScores(at, tile, ${k}) - rowMax);
      ${unroll(
        vectors,
        (i) => `x = fetchValue(key, ${vectors} * texel + ${i}, 0);
      ${unroll(groupRows, (q) => `sum${q * vectors + i} += weights[${q}] * x;`, '\n      ')}`,
        '\n      ',
      )}`,
        '\n      ',
      )}
    }
  }
  ${layers((layer) => `result${layer} = sum${layer};`, '  ')}
}`;
  }
}

interface StoreVariant extends WalkVariant {
  rounds: number;
}

/** The output tensor: sums over weights, from whichever texture a group's last round has drawn. */
export class StoreAttentionProgram extends AttentionProgram<StoreVariant> {
  constructor(walk: AttendWalk, sums: RunningSums[]) {
    const {geometry, endGroup} = walk;
    const [even, odd] = sums;
    super({
      name: 'StoreAttention',
      inputs: {
        evenStatistics: even.statistics,
        evenValues: even.values,
        ...(odd && {oddStatistics: odd.statistics, oddValues: odd.values}),
        ...walkInputs(walk),
      },
      uniforms: {...walkUniforms(walk), endGroup, valueDim: geometry.valueDim},
      variant: {...walkVariant(walk), rounds: sums.length},
      fetches: 3 * walk.parts,
    });
  }

  protected shader(variant: StoreVariant): string {
    const {tileKeys, split, rounds} = variant;
    const vectors = tileKeys / 4;
    const sums = (name: string) => {
      const x = `fetch${name}Values(${lower(name)}ValuesAt(row), vector / ${vectors}, query * ${vectors} + vector % ${vectors})`;
      return split
        ? `
    float rowMax = ${noMaximum};
    for (int part = 0; part < parts; part++) {
      rowMax = max(rowMax, read${name}Statistics(row + part, 0)[query]);
    }
    float sum = 0.0;
    float x = 0.0;
    for (int part = 0; part < parts; part++, row++) {
      ivec2 at = ${lower(name)}StatisticsAt(row);
      float weight = exp2(fetch${name}Statistics(at, 0, 0)[query] - rowMax);
      float partSum = fetch${name}Statistics(at, 0, 1)[query];
      // A part that sees nothing may have seen what is no number.
      if (partSum != 0.0) {
        sum += weight * partSum;
        x += weight * ${x}[place % 4];
      }
    }`
        : `
    float sum = fetch${name}Statistics(${lower(name)}StatisticsAt(row), 0, 1)[query];
    float x = ${x}[place % 4];`;
    };
    const quotient = (name: string) => `${sums(name)}
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x / sum, 0.0, 0.0, 0.0);`;
    return `
// A fragment writes one value of the tensor, if its group belongs to the range.
${groupText(variant)}
void compute(int index) {
  int position = (index / valueDim) % queryLength;
  int head = index / (valueDim * queryLength);
  int place = index % valueDim;
  int vector = place / 4;
  int block = position / blockSize;
  int inBlock = position % blockSize;
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock % groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  int row = ${split ? '(group - firstGroup) * parts' : 'group - firstGroup'};
  int query = inBlock / groupsPerBlock;
  ${
    rounds === 1
      ? quotient('Even')
      : `int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (max(rounds, 1) % 2 == 1) {${quotient('Even')}
  } else {${quotient('Odd')}
  }`
  }
}`;
  }
}

const lower = (name: string) => name[0].toLowerCase() + name.slice(1);
