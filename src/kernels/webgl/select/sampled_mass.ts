import {sampleStride} from '../../../attention/sampled_estimate.js';
import {unroll} from '../../unroll.js';
import {maskByKeyText} from '../glsl/attention_mask.js';
import {keyLengthsInput} from '../glsl/key_lengths.js';
import {formedScores, slopeOfHead} from '../glsl/score_forms.js';
import {logitScale, tileProducts, visibleScore, visibleScores} from '../glsl/score_tile.js';
import {groupRows} from '../glsl/tiles.js';
import {PermuteRowsProgram} from '../permute_rows.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import {headRanges, rangesOf} from '../runtime/ranges.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';
import {NormaliserPiecesProgram, NormalisersProgram, pieces} from './normalisers.js';
import type {FormVariant, SampleWalk} from './sample_walk.js';
import {competingKeys, formSpec, groupAt, groupsOf, originalsOf, sampleUniforms, tileFetches} from './sample_walk.js';
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
            const logSums = rangeScratch(new NormalisersProgram(statistics, call).run(context));
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

interface SharesVariant extends CallVariant, FormVariant {
  headDim: number;
}

/** Share of its attention that a row pays to a key block. A row a group; texel t, layer i: key block i of tile t. */
export class SampledSharesProgram extends AttentionProgram<SharesVariant> {
  constructor(walk: SampleWalk, logSums: RowTexture) {
    const {call, keys} = walk;
    const {query, geometry, scale} = call;
    const {headDim, keyBlockSize, keyBlocks} = geometry;
    const layers = call.context.drawBuffers;
    const {variant, inputs, uniforms, floats} = formSpec(walk);
    super({
      name: 'SampledShares',
      inputs: {query, key: keys, logSums, ...keyLengthsInput(call), ...inputs},
      geometry,
      uniforms: {...sampleUniforms(walk), ...uniforms},
      floats: {...logitScale(scale), ...floats},
      output: {rows: logSums.rows, columns: 4 * Math.ceil(keyBlocks / layers), layers},
      variant: {...callVariant(call), headDim, ...variant},
      fetches: Math.ceil(keyBlockSize / sampleStride) * tileFetches(headDim, layers, variant) + 1,
    });
  }

  protected shader(variant: SharesVariant): string {
    const {causal, tileKeys, headDim, forms, mask} = variant;
    const byOriginal = forms ?? mask;
    return `
// A fragment takes ${tileKeys} key blocks and walks over these side by side, one sampled key of each at a time.
${competingKeys(variant)}
${groupAt}${byOriginal ? originalsOf(tileKeys) : ''}
${visibleScores(false, formedScores(causal, forms))}${mask ? maskByKeyText(mask, tileKeys) : ''}
// A NaN stays one, and so does the infinity that exp2 makes of one on some devices.
vec4 atMost1(vec4 x) {
  return mix(x, vec4(1.0), notEqual(vec4(greaterThan(x, vec4(1.0))) * vec4(lessThan(x, vec4(1e38))), vec4(0.0)));
}
vec4 atMost0(vec4 x) {
  return mix(x, vec4(0.0), greaterThan(x, vec4(0.0)));
}
void compute(int row, int tile) {
  Group group = groupAt(row);
  int head = group.head;
  int competing = competingKeys(head, group.block);
  // Nobody reads the tiles of blocks that do not compete.
  if (tile * ${tileKeys} * keyBlockSize >= competing) {
    discard;
  }
  ivec4 queries = group.block * blockSize + group.rows;
  ${slopeOfHead(forms)}int firstKey = (head - firstHead) * keyLength;
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
    ivec4 keys${i} = ivec4(mix(vec4(positions${i}), vec4(-1.0), greaterThanEqual(positions${i}, end${i})));${byOriginal ? `\n    keys${i} = originalsOf(head, keys${i});` : ''}`,
    )}
${tileProducts(headDim, tileKeys)}
    ${unroll(tileKeys, (k) => `share${k} += exp2(atMost0(${visibleScore(k, mask !== undefined)} - logSums));`)}
  }
  // Where a row's normaliser missed what it pays most to, a share can come out above 1.
  bvec4 exists = lessThan(group.rows, ivec4(min(blockSize, queryLength - group.block * blockSize)));
  ${unroll(
    tileKeys,
    (k) => `share${k} *= ${sampleStride}.0;
  result${k} = mix(vec4(0.0), atMost1(share${k}), exists);`,
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
      geometry: call.geometry,
      uniforms: sampleUniforms(walk),
      output: {rows: batch * heads * queryBlocks, columns: keyBlocks, layers: 2},
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
