import type {TensorInfo} from '@tensorflow/tfjs-core';
import {visibleBlocks} from '../block_geometry.js';
import type {BlockGeometry} from '../block_geometry.js';
import {each} from '../shader_text.js';
import type {AttendWalk, BlockPlan, WalkVariant} from './attend_walk.js';
import {
  groupsPerBlock,
  groupText,
  keysText,
  originsText,
  roundText,
  tilesPerBlock,
  walkUniforms,
  walkVariant,
} from './attend_walk.js';
import type {AttentionContext} from './context.js';
import {PermuteRowsProgram} from './permute_rows.js';
import type {ProgramSpec} from './program.js';
import {AttentionProgram, withScratch} from './program.js';
import type {RowTexture} from './row_texture.js';
import {groupRows, noMaximum, visibleScores, writeScores} from './score_tile.js';
import {newTensor} from './tensor_rows.js';

/**
 * Stage 4, attend: float32 tensor `[batch, heads, length, headDim]`. Softmax attention of each query row over the keys of
 * the blocks in its list, or, without a plan, over all keys: exact attention. With a causal mask a row sees the keys whose
 * original index is not above its own.
 *
 * Fragments share no memory, so that what one learns of a score is lost to the others unless it is drawn. Hence an online
 * softmax by rounds: all groups of four query rows together take their next few key blocks, draw the scores (each once),
 * then the new maximum and sum of each row, then the new weighted sums of values. The scores of a round are all that is
 * kept of them.
 *
 * With a plan, keys and values are first copied into the permuted order, for as many heads as are worked on at a time, so
 * that fragments side by side find them side by side, as without one.
 *
 * A group takes part in its first rounds and in none after, so the last round in which it took part says in which of two
 * textures, drawn in turns, its sums stand; nothing is copied for groups that are done.
 */
export function attend(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  value: RowTexture,
  geometry: BlockGeometry,
  scale: number,
  causal: boolean,
  plan?: BlockPlan,
): TensorInfo {
  const {batch, heads, length, headDim, blocks} = geometry;
  const {drawBuffers, scratchTexels} = context;
  const groupsAtOnce = groupsInRange(context, geometry);
  const headGroups = blocks * groupsPerBlock(geometry);
  const headsAtOnce = Math.max(1, Math.floor(groupsAtOnce / headGroups));
  const permuteRows = (rows: RowTexture, indices: RowTexture, ...headRange: [number, number]) =>
    new PermuteRowsProgram(rows, indices, geometry, ...headRange, drawBuffers).run(context);
  return newTensor(context, [batch, heads, length, headDim], 'float32', (target) => {
    for (let firstHead = 0; firstHead < batch * heads; firstHead += headsAtOnce) {
      const walkHeads = Math.min(headsAtOnce, batch * heads - firstHead);
      withScratch(context, (scratch) => {
        const inOrder = (rows: RowTexture) =>
          plan ? scratch(permuteRows(rows, plan.keyIndices, firstHead, walkHeads)) : rows;
        const keys = inOrder(key);
        const values = inOrder(value);
        for (let firstGroup = 0; firstGroup < walkHeads * headGroups; firstGroup += groupsAtOnce) {
          const endGroup = Math.min(firstGroup + groupsAtOnce, walkHeads * headGroups);
          const slotTexels = (endGroup - firstGroup) * tilesPerBlock(geometry, drawBuffers) * drawBuffers;
          const walk: AttendWalk = {
            geometry,
            causal,
            sparse: plan !== undefined,
            tileKeys: drawBuffers,
            firstHead,
            heads: walkHeads,
            firstGroup,
            endGroup,
            slotsPerRound: Math.max(1, Math.min(Math.floor(scratchTexels / slotTexels), blocks)),
          };
          withScratch(context, (rangeScratch) => {
            const sums = attendGroups(context, query, keys, values, walk, scale, rangeScratch, plan);
            new StoreAttentionProgram(walk, sums, plan).drawTensor(context, target);
          });
        }
      });
    }
  });
}

/** Groups whose scores of one block, and whose two textures of sums, fit the scratch textures. */
function groupsInRange({drawBuffers, scratchTexels}: AttentionContext, geometry: BlockGeometry): number {
  const scoreTexels = tilesPerBlock(geometry, drawBuffers) * drawBuffers;
  const sumTexels = 2 * drawBuffers * valueTexels(geometry.headDim, drawBuffers);
  return Math.max(1, Math.floor(scratchTexels / Math.max(scoreTexels, sumTexels)));
}

/** What is known of each group of the range after a number of rounds. */
interface RunningSums {
  /** Maximum of each row's scores (layer 0), and the sum of exp2(score − maximum) (layer 1). A texel a group. */
  statistics: RowTexture;
  /** Sum of exp2(score − maximum) times value: layers as `AttendValuesProgram` writes them. */
  values: RowTexture;
}

/** Runs the rounds; gives both textures of sums, the first of which holds those of the first, third, … round. */
function attendGroups(
  context: AttentionContext,
  query: RowTexture,
  key: RowTexture,
  value: RowTexture,
  walk: AttendWalk,
  scale: number,
  scratch: (texture: RowTexture) => RowTexture,
  plan?: BlockPlan,
): RunningSums[] {
  const {geometry, causal, endGroup, slotsPerRound} = walk;
  const slots = visibleBlocks(geometry, causal, blockOf(walk, endGroup - 1));
  const sums: RunningSums[] = [];
  let scores: RowTexture | undefined;
  for (let round = 0; round * slotsPerRound < slots; ++round) {
    const firstSlot = round * slotsPerRound;
    const rows = groupsThatReach(walk, firstSlot);
    const scorePass = new AttendScoresProgram(walk, firstSlot, query, key, scale, plan);
    scores ??= scratch(scorePass.allocate(context));
    scorePass.draw(context, scores, ...rows);
    const before = sums[(round + 1) % 2] as RunningSums | undefined;
    const statisticsPass = new AttendStatisticsProgram(walk, firstSlot, scores, before, plan);
    const statistics = sums[round % 2]?.statistics ?? scratch(statisticsPass.allocate(context));
    statisticsPass.draw(context, statistics, ...rows);
    const valuesPass = new AttendValuesProgram(walk, firstSlot, scores, statistics, value, before, plan);
    const values = sums[round % 2]?.values ?? scratch(valuesPass.allocate(context));
    valuesPass.draw(context, values, ...rows);
    sums[round % 2] = {statistics, values};
    // What a round draws is enough for one piece of work on the GPU.
    context.gl.flush();
  }
  return sums;
}

const blockOf = ({geometry, heads}: AttendWalk, group: number) =>
  Math.floor(group / (groupsPerBlock(geometry) * heads));

/** Rows `[first, end)` of the range's textures, past those whose query block sees none of the slots from `slot` on. */
function groupsThatReach(walk: AttendWalk, slot: number): [number, number] {
  const {geometry, causal, heads, firstGroup, endGroup} = walk;
  let block = blockOf(walk, firstGroup);
  while (visibleBlocks(geometry, causal, block) <= slot) {
    ++block;
  }
  const reaching = block * groupsPerBlock(geometry) * heads;
  return [Math.max(reaching - firstGroup, 0), endGroup - firstGroup];
}

/** Texels a group of the sums of values: a fragment writes `drawBuffers` vectors, as many for each of four rows. */
const valueTexels = (headDim: number, drawBuffers: number) =>
  Math.ceil(Math.ceil(headDim / 4) / (drawBuffers / groupRows));

/** Values a row of `value` as `AttendValuesProgram` reads it: no fragment looks past the row. */
export const valueColumns = (headDim: number, drawBuffers: number) => valueTexels(headDim, drawBuffers) * drawBuffers;

function listInput(plan: BlockPlan | undefined): ProgramSpec<object>['inputs'] {
  return plan ? {blockLists: plan.blockLists} : {};
}

/** Scores of a round. A row a group; texel t, layer i: key i of tile t, with the group's four query rows. */
export class AttendScoresProgram extends AttentionProgram<WalkVariant & {headDim: number}> {
  constructor(
    walk: AttendWalk,
    firstSlot: number,
    query: RowTexture,
    key: RowTexture,
    scale: number,
    plan?: BlockPlan,
  ) {
    const {geometry, tileKeys, firstGroup, endGroup, slotsPerRound} = walk;
    super({
      inputs: {query, key, ...listInput(plan), ...(plan && {keyIndices: plan.keyIndices})},
      uniforms: {
        ...walkUniforms(walk),
        firstSlot: {type: 'int', value: firstSlot},
        logitScale: {type: 'float', value: scale * Math.LOG2E},
      },
      output: {rows: endGroup - firstGroup, columns: 4 * slotsPerRound * tilesPerBlock(geometry, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), headDim: geometry.headDim},
      fetches: (4 + tileKeys) * Math.ceil(geometry.headDim / 4),
    });
  }

  protected shader(variant: WalkVariant & {headDim: number}): string {
    const {causal, tileKeys, headDim} = variant;
    return `
// A fragment computes the scores of a group with one tile of ${tileKeys} keys, each key a layer.
${groupText(variant)}
${roundText}
${keysText(variant)}
${originsText(variant)}
${visibleScores(causal)}
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
  ${each(
    tileKeys / 4,
    (i) => `ivec4 positions${i} = positionsIn(block, tileOfBlock, ${i});
  ivec4 keys${i} = originsOf(group, block, tileOfBlock, ${i}, positions${i});`,
    '\n  ',
  )}
${writeScores(headDim, tileKeys)}
}`;
  }
}

interface StatisticsVariant extends WalkVariant {
  firstRound: boolean;
}

/** Maximum (layer 0) and sum (layer 1) of each row up to and with a round. */
export class AttendStatisticsProgram extends AttentionProgram<StatisticsVariant> {
  constructor(
    walk: AttendWalk,
    firstSlot: number,
    scores: RowTexture,
    before: RunningSums | undefined,
    plan?: BlockPlan,
  ) {
    const {geometry, tileKeys, firstGroup, endGroup, slotsPerRound} = walk;
    super({
      inputs: {scores, ...(before && {before: before.statistics}), ...listInput(plan)},
      uniforms: {...walkUniforms(walk), firstSlot: {type: 'int', value: firstSlot}},
      output: {rows: endGroup - firstGroup, columns: 4},
      layers: 2,
      variant: {...walkVariant(walk), firstRound: before === undefined},
      fetches: slotsPerRound * tilesPerBlock(geometry, tileKeys) * tileKeys,
    });
  }

  protected shader(variant: StatisticsVariant): string {
    const {tileKeys, firstRound} = variant;
    return `
// A fragment walks over the scores of a group's four rows, a component each: an online softmax, tile by tile.
${groupText(variant)}
${roundText}
void compute(int row, int texel) {
  int tiles = slotsOfRound(groupAt(firstGroup + row)) * tilesPerBlock;
  if (tiles == 0) {
    discard;
  }
  ${
    firstRound
      ? `vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);`
      : `ivec2 old = beforeAt(row);
  vec4 rowMax = fetchBefore(old, 0, 0);
  vec4 rowSum = fetchBefore(old, 0, 1);`
  }
  ivec2 at = scoresAt(row);
  for (int tile = 0; tile < tiles; tile++) {
    ${each(tileKeys, (k) => `vec4 s${k} = fetchScores(at, tile, ${k});`, '\n    ')}
    vec4 newMax = rowMax;
    ${each(tileKeys, (k) => `newMax = max(newMax, s${k});`, '\n    ')}
    rowSum *= exp2(rowMax - newMax);
    ${each(tileKeys, (k) => `rowSum += exp2(s${k} - newMax);`, '\n    ')}
    rowMax = newMax;
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
    scores: RowTexture,
    statistics: RowTexture,
    value: RowTexture,
    before: RunningSums | undefined,
    plan?: BlockPlan,
  ) {
    const {geometry, tileKeys, firstGroup, endGroup, slotsPerRound} = walk;
    super({
      inputs: {
        scores,
        statistics,
        value,
        ...(before && {beforeStatistics: before.statistics, beforeValues: before.values}),
        ...listInput(plan),
      },
      uniforms: {...walkUniforms(walk), firstSlot: {type: 'int', value: firstSlot}},
      output: {rows: endGroup - firstGroup, columns: 4 * valueTexels(geometry.headDim, tileKeys)},
      layers: tileKeys,
      variant: {...walkVariant(walk), firstRound: before === undefined},
      fetches: slotsPerRound * tilesPerBlock(geometry, tileKeys) * tileKeys * (1 + tileKeys / 4) + tileKeys,
    });
  }

  protected shader(variant: StatisticsVariant): string {
    const {tileKeys, firstRound} = variant;
    const vectors = tileKeys / 4;
    const layers = (text: (layer: number, q: number, i: number) => string, indent: string) =>
      each(tileKeys, (layer) => text(layer, Math.floor(layer / vectors), layer % vectors), `\n${indent}`);
    return `
// A fragment adds up ${vectors} vectors of the values, weighted for each of a group's four rows: ${1 + vectors} fetches a key for
// ${tileKeys} products of vectors.
${groupText(variant)}
${roundText}
${keysText(variant)}
void compute(int row, int texel) {
  Group group = groupAt(firstGroup + row);
  int slots = slotsOfRound(group);
  if (slots == 0) {
    discard;
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
  ivec2 at = scoresAt(row);
  int tile = 0;
  for (int slot = 0; slot < slots; slot++) {
    int block = blockOf(group, slot);
    for (int t = 0; t < tilesPerBlock; t++, tile++) {
      ${each(vectors, (i) => `ivec4 keys${i} = firstKey + min(positionsIn(block, t, ${i}), length - 1);`, '\n      ')}
      ivec2 key;
      vec4 weights;
      vec4 x;
      ${each(
        tileKeys,
        (k) => `key = valueAt(keys${Math.floor(k / 4)}[${k % 4}]);
      weights = exp2(fetchScores(at, tile, ${k}) - rowMax);
      ${each(
        vectors,
        (i) => `x = fetchValue(key, ${vectors} * texel + ${i}, 0);
      ${each(groupRows, (q) => `sum${q * vectors + i} += weights[${q}] * x;`, '\n      ')}`,
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

/** The output tensor: sums over weights, from whichever texture a group's last round has drawn. */
export class StoreAttentionProgram extends AttentionProgram<WalkVariant & {rounds: number}> {
  constructor(walk: AttendWalk, sums: RunningSums[], plan?: BlockPlan) {
    const {geometry, endGroup} = walk;
    const [even, odd] = sums;
    super({
      inputs: {
        evenStatistics: even.statistics,
        evenValues: even.values,
        ...(odd && {oddStatistics: odd.statistics, oddValues: odd.values}),
        ...(plan && {blockLists: plan.blockLists}),
      },
      uniforms: {
        ...walkUniforms(walk),
        endGroup: {type: 'int', value: endGroup},
        headDim: {type: 'int', value: geometry.headDim},
      },
      variant: {...walkVariant(walk), rounds: sums.length},
      fetches: 3,
    });
  }

  protected shader(variant: WalkVariant & {rounds: number}): string {
    const {tileKeys, rounds} = variant;
    const vectors = tileKeys / 4;
    const quotient = (name: string) => `
    float sum = fetch${name}Statistics(${lower(name)}StatisticsAt(row), 0, 1)[query];
    vec4 x = fetch${name}Values(${lower(name)}ValuesAt(row), vector / ${vectors}, query * ${vectors} + vector % ${vectors});
    // A row that sees nothing gives zeros.
    result0 = vec4(sum == 0.0 ? 0.0 : x[place % 4] / sum, 0.0, 0.0, 0.0);`;
    return `
// A fragment writes one value of the tensor, if its group belongs to the range.
${groupText(variant)}
void compute(int index) {
  int position = (index / headDim) % length;
  int head = index / (headDim * length);
  int place = index % headDim;
  int vector = place / 4;
  int block = position / blockSize;
  int inBlock = position % blockSize;
  int group = (block * walkHeads + head - firstHead) * groupsPerBlock + inBlock % groupsPerBlock;
  if (head < firstHead || head >= firstHead + walkHeads || group < firstGroup || group >= endGroup) {
    discard;
  }
  int row = group - firstGroup;
  int query = inBlock / groupsPerBlock;
  ${
    rounds === 1
      ? quotient('Even')
      : `int rounds = (slotCount(groupAt(group)) + slotsPerRound - 1) / slotsPerRound;
  if (rounds % 2 == 1) {${quotient('Even')}
  } else {${quotient('Odd')}
  }`
  }
}`;
  }
}

const lower = (name: string) => name[0].toLowerCase() + name.slice(1);
