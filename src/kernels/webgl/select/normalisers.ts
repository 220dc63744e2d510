import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {scoredBlocks, visibleBlocks} from '../../../attention/block_geometry.js';
import {normaliserStride, sampleStride, tileSlots} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import {visibleBlocks as visibleBlocksText} from '../glsl/block_ranges.js';
import {maskByKeyText} from '../glsl/attention_mask.js';
import {keyLengthsInput} from '../glsl/key_lengths.js';
import {logOfSums} from '../glsl/not_finite.js';
import {formedScores, slopeOfHead} from '../glsl/score_forms.js';
import {
  logitScale,
  maskedScore,
  noMaximum,
  noScores,
  scoreTexts,
  takeScores,
  tileProducts,
  visibleScore,
} from '../glsl/score_tile.js';
import {tilesPerBlock} from '../glsl/tiles.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';
import type {FormVariant, SampleWalk} from './sample_walk.js';
import {competingKeys, formSpec, groupAt, groupsOf, originalsOf, sampleUniforms, tileFetches} from './sample_walk.js';

/** Sampled keys of a piece of a normaliser. */
const samplesPerPiece = 128;

/** Pieces of a normaliser: a block each of those that always count, own ones and that of key 0; and runs of sampled keys. */
export function pieces(geometry: BlockGeometry, causal: boolean): {exact: number; all: number} {
  const ownBlocks = Array.from(
    {length: geometry.queryBlocks},
    (_, i) => visibleBlocks(geometry, causal, i) - scoredBlocks(geometry, causal, i),
  );
  const exact = ownBlocks.reduce((a, b) => Math.max(a, b), 0) + 1;
  return {exact, all: exact + Math.ceil(geometry.keyLength / (normaliserStride * samplesPerPiece))};
}

const orNoneBefore = `ivec4 orNoneBefore(ivec4 slots, int first) {
  return ivec4(mix(vec4(slots), vec4(-1.0), lessThan(slots, ivec4(first))));
}
`;
const windowOfBlock = `bool seesSink = seesFirstKey(group.block);
  int firstSlot = firstVisibleBlock(group.block) * keyBlockSize;
  `;

interface PiecesVariant extends CallVariant, FormVariant {
  headDim: number;
}

/** Maximum (layer 0) and sum of exp2(score − maximum) (layer 1) of a group's rows over one piece of their normalisers. */
export class NormaliserPiecesProgram extends AttentionProgram<PiecesVariant> {
  constructor(walk: SampleWalk) {
    const {call, keyIndices, sinkBlocks, keys, firstRow, endRow} = walk;
    const {query, geometry, scale, causal} = call;
    const {exact, all} = pieces(geometry, causal);
    const {headDim} = geometry;
    const tileKeys = call.context.drawBuffers;
    const blockTiles = tilesPerBlock(geometry, tileKeys);
    const tiles = Math.max(blockTiles, samplesPerPiece / tileKeys);
    const {variant, inputs, uniforms, floats} = formSpec(walk);
    super({
      name: 'NormaliserPieces',
      inputs: {query, key: keys, keyIndices, sinkBlocks, ...keyLengthsInput(call), ...inputs},
      geometry,
      uniforms: {...sampleUniforms(walk), tilesPerBlock: blockTiles, exactPieces: exact, ...uniforms},
      floats: {...logitScale(scale), ...floats},
      output: {rows: (endRow - firstRow) * groupsOf(geometry).all, columns: 4 * all, layers: 2},
      variant: {...callVariant(call), headDim, ...variant},
      fetches: tiles * (tileFetches(headDim, tileKeys, variant) + tileKeys / 4),
    });
  }

  protected shader(variant: PiecesVariant): string {
    const {causal, padded, tileKeys, headDim, forms, mask, window} = variant;
    const byOriginal = forms ?? mask;
    // Sampled keys, of which forms need to know where they stand.
    const sampled = (i: number) => {
      const slots = window
        ? `orNoneBefore(orNoneOfBlock(positions${i}, seesSink ? sink : -1, competing), firstSlot)`
        : `orNoneOfBlock(positions${i}, sink, competing)`;
      return byOriginal ? `originalsOf(head, ${slots})` : slots;
    };
    const original = (i: number) => `ivec4(readKeyIndices(head * keyBlocks + block, tile * ${tileKeys / 4} + ${i}))`;
    return `
// A fragment walks over a piece of the keys, a tile of ${tileKeys} at a time: over a block that always counts, under the masks, or over
// sampled keys that compete, but for those of the block of key 0. One key of ${normaliserStride} is sampled.
${competingKeys(variant)}${visibleBlocksText(causal, window)}
${groupAt}${byOriginal ? originalsOf(tileKeys) : ''}
${scoreTexts(causal, formedScores(causal, forms))}${mask ? maskByKeyText(mask, tileKeys) : ''}
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
${window ? orNoneBefore : ''}void compute(int row, int piece) {
  Group group = groupAt(row);
  int head = group.head;
  ivec4 queries = group.block * blockSize + group.rows;
  int firstKey = (head - firstHead) * keyLength;
  int candidates = candidateBlocks(group.block);
  int ownBlocks = visibleBlocks(group.block) - candidates;
  int competing = competingKeys(head, group.block);
  int sink = int(readSinkBlocks(head, 0).x);
  ${slopeOfHead(forms)}${window ? windowOfBlock : ''}bool exact = piece < exactPieces;
  int block = piece < ownBlocks ? candidates + piece : sink;
  int firstSample = (piece - exactPieces) * ${samplesPerPiece};
  int tiles = exact ? tilesPerBlock : ${samplesPerPiece / tileKeys};
  // In its own segment the block of key 0 is one of the own blocks.
  if (exact ? piece > ownBlocks || piece == ownBlocks && ${window ? '(sink >= candidates || !seesSink)' : 'sink >= candidates'} : ${normaliserStride} * firstSample >= competing) {
    tiles = 0;
  }
  float weight = exact ? 0.0 : ${Math.log2(normaliserStride)}.0;
  ${noScores}
  for (int tile = 0; tile < tiles; tile++) {
    ${unroll(
      tileKeys / 4,
      (i) => `ivec4 places${i} = tile + (ivec4(0, 1, 2, 3) + ${4 * i}) * tiles;
    ivec4 positions${i} = exact ? block * keyBlockSize + places${i} : sampledSlots(firstSample + places${i}, group.phase);
    ivec4 keys${i} = exact ? ${padded ? `orNone(${original(i)}, keyEnd(head))` : original(i)} : ${sampled(i)};`,
    )}
${tileProducts(headDim, tileKeys)}
    ${unroll(tileKeys, (k) => `vec4 s${k} = weight + ${visibleScore(k, mask !== undefined)};`)}
    ${takeScores(tileKeys)}
  }
  result0 = rowMax;
  result1 = rowSum;
}`;
  }
}

/** log2 of what a group's rows pay to all keys. One texel a group. */
export class NormalisersProgram extends AttentionProgram<{canMiss?: true}> {
  constructor(statistics: RowTexture, {geometry, tensors}: Pick<WebGLCall, 'geometry' | 'tensors'>) {
    super({
      name: 'Normalisers',
      inputs: {statistics},
      output: {rows: statistics.rows, columns: 4},
      variant: geometry.window === undefined && !tensors.mask ? {} : {canMiss: true},
      fetches: 3 * statistics.texels,
    });
  }

  protected shader({canMiss}: {canMiss?: true}): string {
    // The few keys that stand for all can all lie outside of the window, or be hidden by the mask: then what a row sees of a block is all that is known.
    const ofNothing = canMiss
      ? 'A row that sees none of the keys gets a sum so small that what it sees of a block is all.'
      : 'A row that sees nothing gets a sum so large that its shares are 0.';
    return `
// A fragment combines the pieces of a group. ${ofNothing}${logOfSums}
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
  result0 = mix(vec4(${canMiss ? noMaximum : `-(${maskedScore})`}), rowMax + logOfSums(sum), notEqual(sum, vec4(0.0)));
}`;
  }
}
