import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import type {Factors, RoundScoresProgram} from '../attend/attend_passes.js';
import {derivativeFactors} from '../attend/attend_passes.js';
import type {AttendWalk} from '../attend/attend_walk.js';
import {groupOfRow, walkUniforms} from '../attend/attend_walk.js';
import type {WalkCut} from '../attend/each_walk.js';
import {forEachWalk} from '../attend/each_walk.js';
import {maskedScore} from '../glsl/score_tile.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/** A factor with which products are not scaled: scores are in units of log2. */
const unscaled = Math.LN2;

/** Those of the gradients of weights. */
const weightFactors = ({call, values}: AttendWalk): Factors => ({
  query: call.dy,
  key: values!,
  dim: call.geometry.valueDim,
  scale: unscaled,
});

/** The same geometry with keys in the place of queries: for walks of keys over the queries that see them. */
export function transposed(geometry: BlockGeometry): BlockGeometry {
  const {queryLength, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  return {
    ...geometry,
    queryLength: keyLength,
    keyLength: queryLength,
    blockSize: keyBlockSize,
    // A row of scores has room for a block of them, however long one may be.
    keyBlockSize: Math.min(blockSize, queryLength),
    queryBlocks: keyBlocks,
    keyBlocks: queryBlocks,
  };
}

/** What sums of gradients are drawn from, in a round. */
export interface GradientRound {
  firstSlot: number;
  scores: RowTexture;
  /** Of the gradient of the output and the values: less delta, they are the gradients of weights. */
  products: RowTexture;
  /** Of scores by what a soft cap is given, if there is one. */
  derivatives?: RowTexture;
  /** The sums up to the round, if it is not the first. */
  before?: RowTexture;
}

/** Shader text for `addRows`: `shares`, the weights of key k by the logarithm of their sum, and `unseen`. */
export const sharesOf = (k: number, logSum: string) => `vec4 scores = fetchScores(at, tile, ${k});
        vec4 shares = mix(exp2(scores - ${logSum}), vec4(0.0), equal(scores, vec4(${maskedScore})));
        bvec4 unseen = equal(shares, vec4(0.0));`;

/** A gradient, as the sums that a program draws round by round. */
export interface SummedGradient {
  program: (walk: AttendWalk, round: GradientRound) => AttentionProgram<object>;
  /** Values a row. */
  dim: number;
  /** What the sums are multiplied with. */
  factor: number;
}

/**
 * Gradients that the same walks give, each as rows `[batch * heads * queryLength]` of the walks' geometry. The caller gives
 * them back through `take`.
 *
 * @param Scores draws scores and products of a round.
 */
export function sumGradients(
  call: WebGLCall,
  cut: WalkCut,
  Scores: new (walk: AttendWalk, firstSlot: number, factors?: Factors) => RoundScoresProgram,
  gradients: SummedGradient[],
  take: Take<RowTexture>,
): RowTexture[] {
  const {context} = call;
  const targets: RowTexture[] = [];
  forEachWalk(call, cut, (walk, scratch) => {
    let [scores, products, derivatives]: Array<RowTexture | undefined> = [];
    // Those of the last round and of the one before, which two textures hold by turns.
    const sums = gradients.map((): RowTexture[] => []);
    const slots = mostSlots(walk);
    for (let firstSlot = 0; firstSlot < slots; firstSlot += walk.slotsPerRound) {
      scores = new Scores(walk, firstSlot).drawInto(context, scores, scratch);
      products = new Scores(walk, firstSlot, weightFactors(walk)).drawInto(context, products, scratch);
      if (call.softCap !== undefined) {
        derivatives = new Scores(walk, firstSlot, derivativeFactors(walk)).drawInto(context, derivatives, scratch);
      }
      for (const [i, {program}] of gradients.entries()) {
        const [before, spare] = sums[i];
        const sumPass = program(walk, {firstSlot, scores, products, derivatives, before});
        sums[i] = [sumPass.drawInto(context, spare, scratch), before];
      }
      context.gl.flush();
    }
    gradients.forEach(({dim, factor}, i) => {
      const rowsPass = new GradientRowsProgram(walk, sums[i][0], dim, factor);
      targets[i] = rowsPass.drawInto(context, targets[i], take);
    });
  });
  return targets;
}

/** Slots of a group at the most: where blocks have no lists and rows a window, those that a block and a window reach into. */
function mostSlots({plan, geometry: {keyBlocks, blockSize, keyBlockSize, window}, call: {causal}}: AttendWalk): number {
  if (plan || window === undefined) {
    return keyBlocks;
  }
  const reached = blockSize + (causal ? 1 : 2) * (window - 1);
  return Math.min(keyBlocks, Math.ceil(reached / keyBlockSize) + 1);
}

/** The sums of a range of groups as rows, `[batch * heads * queryLength]` of `dim` values, times a factor. */
export class GradientRowsProgram extends AttentionProgram<{tileKeys: number}> {
  constructor(walk: AttendWalk, sums: RowTexture, dim: number, factor: number) {
    const {call, geometry, endGroup} = walk;
    const {batch, heads, queryLength} = geometry;
    super({
      name: 'GradientRows',
      inputs: {sums},
      geometry,
      uniforms: {...walkUniforms(walk), endGroup},
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
  int head = divide(row, queryLength);
  int position = row - head * queryLength;
  ${groupOfRow}
  ivec2 at = sumsAt(group - firstGroup);
  result0 = factor * fetchSums(at, texel / ${vectors}, query * ${vectors} + texel % ${vectors});
}`;
  }
}
