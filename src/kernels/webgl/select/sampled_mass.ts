import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {scoredBlocks, visibleBlocks} from '../../../attention/block_geometry.js';
import {normaliserStride, peakWeight, sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import {candidateBlocks, candidateUniforms, visibleBlocks as visibleBlocksText} from '../glsl/block_ranges.js';
import {keyEndText, keyEndUniforms, keyLengthsInput} from '../glsl/key_lengths.js';
import {logitScale, maskedScore, noMaximum, orNone, tileProducts, visibleScores} from '../glsl/score_tile.js';
import {groupRows, tilesPerBlock} from '../glsl/tiles.js';
import {PermuteRowsProgram} from '../permute_rows.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import {headRanges, rangesOf} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';
import {SinkBlocksProgram} from './select_blocks.js';

/**
 * Stage 2, score blocks, by the sampled estimate (`sampled_estimate.ts`): rows of `keyBlocks` values, one row a query block and
 * head: what the rows of the query block pay to each key block that competes for it, 0 for the others: the mean over the rows
 * (layer 0) and the most that one row pays (layer 1).
 *
 * Rows of one phase meet the same keys, and of each four neighbours one has it. So a *group* is four rows of a block with the
 * same phase, a component each; groups are numbered `[query block, phase, group]`. First each row's normaliser is drawn, by
 * pieces of the keys that it is made of; then the shares of the key blocks, group by group; then what is asked of them, for as
 * many query blocks at a time as fill the scratch textures. Keys are read from a copy in sorted order, as in the attend stage.
 */
export function sampledMass(call: WebGLCall, keyIndices: RowTexture): RowTexture {
  const {context, geometry, causal, key} = call;
  const {keyLength, queryBlocks, keyBlocks} = geometry;
  const {drawBuffers, scratchTexels} = context;
  const groupTexels = Math.ceil(keyBlocks / drawBuffers) * drawBuffers + 2 * pieces(geometry, causal).all;
  const rowsAtOnce = scratchTexels / (groupsOf(geometry).all * groupTexels);
  return withScratch(context, (scratch, keep) => {
    const sinkBlocks = scratch(new SinkBlocksProgram(call, keyIndices).run(context));
    let mass: RowTexture | undefined;
    for (const {firstHead, heads} of headRanges(geometry, scratchTexels / (keyLength * key.texels))) {
      withScratch(context, (headScratch) => {
        const keys = headScratch(new PermuteRowsProgram(call, key, {keyIndices, firstHead, heads}).run(context));
        const firstOfHeads = firstHead * queryBlocks;
        for (const [first, end] of rangesOf(heads * queryBlocks, rowsAtOnce)) {
          const rows = {firstRow: firstOfHeads + first, endRow: firstOfHeads + end};
          const walk: SampleWalk = {call, keyIndices, sinkBlocks, keys, firstHead, ...rows};
          withScratch(context, (rangeScratch) => {
            const statistics = rangeScratch(new NormaliserPiecesProgram(walk).run(context));
            const logSums = rangeScratch(new NormalisersProgram(statistics).run(context));
            const shares = rangeScratch(new SampledSharesProgram(walk, logSums).run(context));
            const program = new SampledMassProgram(walk, shares);
            mass = program.drawInto(context, mass, keep, rows.firstRow, rows.endRow);
            // What these blocks draw is enough for one piece of work on the GPU.
            context.gl.flush();
          });
        }
      });
    }
    return mass!;
  });
}

/** Query blocks `[firstRow, endRow)` of `[batch * heads, queryBlocks]`, which are worked on at a time. */
export interface SampleWalk {
  call: WebGLCall;
  keyIndices: RowTexture;
  sinkBlocks: RowTexture;
  /** In sorted order, from those of `firstHead` on. */
  keys: RowTexture;
  firstHead: number;
  firstRow: number;
  endRow: number;
}

/** Groups of the rows of a query block. */
function groupsOf({blockSize, queryLength}: BlockGeometry): {ofPhase: number; all: number} {
  const ofPhase = Math.ceil(Math.ceil(Math.min(blockSize, queryLength) / sampleStride) / groupRows);
  return {ofPhase, all: sampleStride * ofPhase};
}

/** Sampled keys of a piece of a normaliser. */
const samplesPerPiece = 128;

/** Pieces of a normaliser: a block each of those that always count, own ones and that of key 0; and runs of sampled keys. */
function pieces(geometry: BlockGeometry, causal: boolean): {exact: number; all: number} {
  const ownBlocks = Array.from(
    {length: geometry.queryBlocks},
    (_, i) => visibleBlocks(geometry, causal, i) - scoredBlocks(geometry, causal, i),
  );
  const exact = ownBlocks.reduce((a, b) => Math.max(a, b), 0) + 1;
  return {exact, all: exact + Math.ceil(geometry.keyLength / (normaliserStride * samplesPerPiece))};
}

function sampleUniforms({call, firstHead, firstRow}: SampleWalk): Uniforms {
  const {geometry, causal} = call;
  const {queryLength, blockSize, keyBlockSize} = geometry;
  const groups = groupsOf(geometry);
  return {
    ...keyEndUniforms(geometry),
    ...candidateUniforms(geometry, causal),
    queryLength,
    blockSize,
    keyBlockSize,
    firstHead,
    firstBlockRow: firstRow,
    groups: groups.all,
    groupsOfPhase: groups.ofPhase,
  };
}

/** Shader text: `competingKeys(head, queryBlock)`, the slots of the sorted order that compete; padding stands behind them. */
const competingKeys = ({causal, padded}: CallVariant) => `${padded ? keyEndText : ''}${candidateBlocks(causal)}
int competingKeys(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock) * keyBlockSize, ${padded ? 'keyEnd(head)' : 'keyLength'});
}`;

/**
 * Shader text: the head, query block and phase of a group, and its rows, counted from the first of the block. Of rows 4a to
 * 4a + 3 one has the phase: the inverse of `phaseOf`.
 */
const groupAt = `
struct Group {
  int head;
  int block;
  int phase;
  ivec4 rows;
};
Group groupAt(int row) {
  int blockInRange = divide(row, groups);
  int group = row - blockInRange * groups;
  int phase = divide(group, groupsOfPhase);
  ivec4 fours = group - phase * groupsOfPhase + ivec4(0, 1, 2, 3) * groupsOfPhase;
  int blockRow = firstBlockRow + blockInRange;
  int head = divide(blockRow, queryBlocks);
  return Group(
    head,
    blockRow - head * queryBlocks,
    phase,
    ${sampleStride} * fours + ((phase - fours) & ${sampleStride - 1})
  );
}`;

/** Maximum (layer 0) and sum of exp2(score − maximum) (layer 1) of a group's rows over one piece of their normalisers. */
export class NormaliserPiecesProgram extends AttentionProgram<CallVariant & {headDim: number}> {
  constructor(walk: SampleWalk) {
    const {call, keyIndices, sinkBlocks, keys, firstRow, endRow} = walk;
    const {query, geometry, scale, causal} = call;
    const {exact, all} = pieces(geometry, causal);
    const tileKeys = call.context.drawBuffers;
    const blockTiles = tilesPerBlock(geometry, tileKeys);
    const tiles = Math.max(blockTiles, samplesPerPiece / tileKeys);
    super({
      name: 'NormaliserPieces',
      inputs: {query, key: keys, keyIndices, sinkBlocks, ...keyLengthsInput(call)},
      uniforms: {
        ...sampleUniforms(walk),
        ...(causal && {queryOffset: geometry.queryOffset}),
        tilesPerBlock: blockTiles,
        exactPieces: exact,
      },
      floats: logitScale(scale),
      output: {rows: (endRow - firstRow) * groupsOf(geometry).all, columns: 4 * all},
      layers: 2,
      variant: {...callVariant(call), headDim: geometry.headDim},
      fetches: tiles * ((groupRows + tileKeys) * Math.ceil(geometry.headDim / 4) + tileKeys / 4),
    });
  }

  protected shader(variant: CallVariant & {headDim: number}): string {
    const {causal, padded, tileKeys, headDim} = variant;
    const original = (i: number) => `ivec4(readKeyIndices(head * blocks + block, tile * ${tileKeys / 4} + ${i}))`;
    return `
// A fragment walks over a piece of the keys, a tile of ${tileKeys} at a time: over a block that always counts, under the masks, or over
// sampled keys that compete, but for those of the block of key 0. One key of ${normaliserStride} is sampled.
${competingKeys(variant)}${visibleBlocksText(causal)}
${groupAt}
${orNone}
${visibleScores(causal)}
ivec4 sampledSlots(ivec4 samples, int phase) {
  ivec4 run = samples / ${tileSlots / sampleStride};
  ivec4 tile = ${sampleStride} * run + ((-phase - run) & ${sampleStride - 1});
  return ${tileSlots} * tile + ${sampleStride} * (samples % ${tileSlots / sampleStride}) + (-phase & ${sampleStride - 1});
}
ivec4 orNoneOfBlock(ivec4 slots, int block, int end) {
  ivec4 inBlock = slots - block * keyBlockSize;
  ivec4 hits = ivec4(greaterThanEqual(inBlock, ivec4(0))) * ivec4(lessThan(inBlock, ivec4(keyBlockSize)));
  return ivec4(mix(vec4(orNone(slots, end)), vec4(-1.0), equal(hits, ivec4(1))));
}
void compute(int row, int piece) {
  Group group = groupAt(row);
  int head = group.head;
  ivec4 queries = group.block * blockSize + group.rows;
  int firstKey = (head - firstHead) * keyLength;
  int candidates = candidateBlocks(group.block);
  int ownBlocks = visibleBlocks(group.block) - candidates;
  int competing = competingKeys(head, group.block);
  int sink = int(readSinkBlocks(head, 0).x);
  bool exact = piece < exactPieces;
  int block = piece < ownBlocks ? candidates + piece : sink;
  int firstSample = (piece - exactPieces) * ${samplesPerPiece};
  int tiles = exact ? tilesPerBlock : ${samplesPerPiece / tileKeys};
  // In its own segment the block of key 0 is one of the own blocks.
  if (exact ? piece > ownBlocks || piece == ownBlocks && sink >= candidates : ${normaliserStride} * firstSample >= competing) {
    tiles = 0;
  }
  float weight = exact ? 0.0 : ${Math.log2(normaliserStride)}.0;
  vec4 rowMax = vec4(${noMaximum});
  vec4 rowSum = vec4(0.0);
  for (int tile = 0; tile < tiles; tile++) {
    ${unroll(
      tileKeys / 4,
      (i) => `ivec4 places${i} = tile + (ivec4(0, 1, 2, 3) + ${4 * i}) * tiles;
    ivec4 positions${i} = exact ? block * keyBlockSize + places${i} : sampledSlots(firstSample + places${i}, group.phase);
    ivec4 keys${i} = exact ? ${padded ? `orNone(${original(i)}, keyEnd(head))` : original(i)} : orNoneOfBlock(positions${i}, sink, competing);`,
    )}
${tileProducts(headDim, tileKeys)}
    vec4 newMax = rowMax;
    ${unroll(
      tileKeys,
      (k) => `vec4 s${k} = weight + visible(keys${Math.floor(k / 4)}[${k % 4}], queries, logitScale * score${k});
    newMax = max(newMax, s${k});`,
    )}
    rowSum *= exp2(rowMax - newMax);
    ${unroll(tileKeys, (k) => `rowSum += exp2(s${k} - newMax);`)}
    rowMax = newMax;
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/** log2 of what a group's rows pay to all keys. One texel a group. */
export class NormalisersProgram extends AttentionProgram<object> {
  constructor(statistics: RowTexture) {
    super({
      name: 'Normalisers',
      inputs: {statistics},
      output: {rows: statistics.rows, columns: 4},
      variant: {},
      fetches: 3 * statistics.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment combines the pieces of a group. A row that sees nothing gets a sum so large that its shares are 0.
void compute(int row, int texel) {
  ivec2 at = statisticsAt(row);
  vec4 rowMax = vec4(${noMaximum});
  for (int piece = 0; piece < statisticsTexels; piece++) {
    rowMax = max(rowMax, fetchStatistics(at, piece, 0));
  }
  vec4 sum = vec4(0.0);
  for (int piece = 0; piece < statisticsTexels; piece++) {
    sum += fetchStatistics(at, piece, 1) * exp2(fetchStatistics(at, piece, 0) - rowMax);
  }
  result0 = mix(vec4(-(${maskedScore})), rowMax + log2(sum), notEqual(sum, vec4(0.0)));
}`;
  }
}

/** Share of its attention that a row pays to a key block. A row a group; texel t, layer i: key block i of tile t. */
export class SampledSharesProgram extends AttentionProgram<CallVariant & {headDim: number}> {
  constructor(walk: SampleWalk, logSums: RowTexture) {
    const {call, keys} = walk;
    const {query, geometry, scale} = call;
    const {headDim, keyBlockSize, keyBlocks} = geometry;
    const tileKeys = call.context.drawBuffers;
    super({
      name: 'SampledShares',
      inputs: {query, key: keys, logSums, ...keyLengthsInput(call)},
      uniforms: sampleUniforms(walk),
      floats: logitScale(scale),
      output: {rows: logSums.rows, columns: 4 * Math.ceil(keyBlocks / tileKeys)},
      layers: tileKeys,
      variant: {...callVariant(call), headDim},
      fetches: Math.ceil(keyBlockSize / sampleStride) * (groupRows + tileKeys) * Math.ceil(headDim / 4) + 1,
    });
  }

  protected shader(variant: CallVariant & {headDim: number}): string {
    const {tileKeys, headDim} = variant;
    return `
// A fragment takes ${tileKeys} key blocks and walks over these side by side, one sampled key of each at a time.
${competingKeys(variant)}
${groupAt}
${visibleScores(false)}
void compute(int row, int tile) {
  Group group = groupAt(row);
  int head = group.head;
  int competing = competingKeys(head, group.block);
  // Nobody reads the tiles of blocks that do not compete.
  if (tile * ${tileKeys} * keyBlockSize >= competing) {
    discard;
  }
  ivec4 queries = group.block * blockSize + group.rows;
  int firstKey = (head - firstHead) * keyLength;
  vec4 logSums = readLogSums(row, 0);
  ${unroll(tileKeys, (k) => `vec4 share${k} = vec4(0.0);`, '\n  ')}
  ${unroll(
    tileKeys / 4,
    (i) => `ivec4 first${i} = (tile * ${tileKeys} + ivec4(0, 1, 2, 3) + ${4 * i}) * keyBlockSize;
  ivec4 end${i} = min(first${i} + keyBlockSize, competing);
  first${i} += -(first${i} + group.phase) & ${sampleStride - 1};`,
    '\n  ',
  )}
  for (int step = 0; step < keyBlockSize; step += ${sampleStride}) {
    ${unroll(
      tileKeys / 4,
      (i) => `ivec4 positions${i} = first${i} + step;
    ivec4 keys${i} = ivec4(mix(vec4(positions${i}), vec4(-1.0), greaterThanEqual(positions${i}, end${i})));`,
    )}
${tileProducts(headDim, tileKeys)}
    ${unroll(
      tileKeys,
      (k) =>
        `share${k} += exp2(visible(keys${Math.floor(k / 4)}[${k % 4}], queries, logitScale * score${k}) - logSums);`,
    )}
  }
  // Where a row's normaliser missed what it pays most to, a share can come out above 1. A NaN stays one.
  bvec4 exists = lessThan(group.rows, ivec4(min(blockSize, queryLength - group.block * blockSize)));
  ${unroll(
    tileKeys,
    (k) => `share${k} *= ${sampleStride}.0;
  result${k} = mix(vec4(0.0), mix(share${k}, vec4(1.0), greaterThan(share${k}, vec4(1.0))), exists);`,
    '\n  ',
  )}
}`;
  }
}

/** Mean (layer 0) and maximum (layer 1) of the shares over the rows of a query block. */
export class SampledMassProgram extends AttentionProgram<CallVariant> {
  constructor(walk: SampleWalk, shares: RowTexture) {
    const {call} = walk;
    const {batch, heads, queryBlocks, keyBlocks} = call.geometry;
    super({
      name: 'SampledMass',
      inputs: {shares, ...keyLengthsInput(call)},
      uniforms: sampleUniforms(walk),
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks},
      layers: 2,
      variant: callVariant(call),
      fetches: groupRows * groupsOf(call.geometry).all,
    });
  }

  protected shader(variant: CallVariant): string {
    const {tileKeys} = variant;
    return `
// A fragment takes four key blocks.
${competingKeys(variant)}
void compute(int row, int texel) {
  int head = divide(row, queryBlocks);
  int queryBlock = row - head * queryBlocks;
  vec4 sums = vec4(0.0);
  vec4 peaks = vec4(0.0);
  if (4 * texel * keyBlockSize < competingKeys(head, queryBlock)) {
    int firstGroup = (row - firstBlockRow) * groups;
    for (int i = firstGroup; i < firstGroup + groups; i++) {
      ivec2 at = sharesAt(i);
      for (int c = 0; c < 4; c++) {
        vec4 shares = fetchShares(at, 4 * texel / ${tileKeys}, 4 * texel % ${tileKeys} + c);
        sums[c] += dot(shares, vec4(1.0));
        peaks[c] = max(peaks[c], max(max(shares.x, shares.y), max(shares.z, shares.w)));
      }
    }
  }
  result0 = sums / float(min(blockSize, queryLength - queryBlock * blockSize));
  result1 = peaks;
}`;
  }
}

/** The scores that {@link selectBlocks} chooses by. Rows as in the mass. */
export class SampledScoresProgram extends AttentionProgram<object> {
  constructor(mass: RowTexture) {
    super({
      name: 'SampledScores',
      inputs: {mass},
      output: {rows: mass.rows, columns: mass.columns},
      variant: {},
      fetches: 2,
    });
  }

  protected shader(): string {
    return `
// A fragment adds up the parts of four scores.
void compute(int row, int texel) {
  ivec2 at = massAt(row);
  result0 = fetchMass(at, texel, 0) + ${peakWeight} * fetchMass(at, texel, 1);
}`;
  }
}
