import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import type {Take} from '../../../attention/scratch.js';
import type {AttentionMask} from '../glsl/attention_mask.js';
import {keyLengthsInput} from '../glsl/key_lengths.js';
import type {ScoreForms} from '../glsl/score_forms.js';
import {maskUniforms} from '../glsl/attention_mask.js';
import {capFloats} from '../glsl/score_forms.js';
import {logitScale} from '../glsl/score_tile.js';
import {groupRows} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import {AttentionProgram, withScratch} from '../runtime/program.js';
import type {HeadRange} from '../runtime/ranges.js';
import {headRanges} from '../runtime/ranges.js';
import type {RowShape, RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';
import {callVariant} from '../webgl_call.js';

/** Some heads of a call, whose keys are scored at a time. */
export interface HeadWalk extends HeadRange {
  call: WebGLCall;
}

/**
 * Rows of `segmentSize` values, one row a segment and head: `keyScores`. More heads than fit the scratch texture are done
 * after one another.
 *
 * @param headTexels what a head takes of it.
 * @param lastProgram runs all programs but the one that draws the scores, which it gives.
 */
export function scoreKeysByHeads(
  call: WebGLCall,
  headTexels: number,
  lastProgram: (walk: HeadWalk, scratch: Take<RowTexture>) => AttentionProgram<object>,
): RowTexture {
  const {context, geometry} = call;
  const segments = geometry.permutedLength / geometry.segmentSize;
  return withScratch(context, (_, keep) => {
    let keyScores: RowTexture | undefined;
    for (const {firstHead, heads} of headRanges(geometry, context.scratchTexels / headTexels)) {
      withScratch(context, (scratch) => {
        const program = lastProgram({call, firstHead, heads}, scratch);
        keyScores = program.drawInto(context, keyScores, keep, firstHead * segments, (firstHead + heads) * segments);
      });
    }
    return keyScores!;
  });
}

/** Uniforms: whether rows have positions among the keys, and that of the first. */
export const positionUniforms = (geometry: BlockGeometry, causal: boolean): Uniforms => ({
  hasPositions: Number(rowsHavePositions(geometry, causal)),
  firstPosition: causal ? geometry.queryOffset : 0,
});

export interface HeadScoresVariant extends CallVariant {
  headDim: number;
  forms?: ScoreForms;
  /** The mask's dtype. */
  mask?: string;
}

/** Base of programs that draw scores of some heads, with `writeScores`. */
export abstract class HeadScoresProgram extends AttentionProgram<HeadScoresVariant> {
  constructor(
    name: string,
    {call}: HeadWalk,
    uniforms: Uniforms,
    output: RowShape,
    {forms, mask}: {forms?: ScoreForms; mask?: AttentionMask} = {},
  ) {
    const {query, key, geometry, scale, context} = call;
    const {headDim} = geometry;
    const layers = context.drawBuffers;
    super({
      name,
      inputs: {
        ...{query, key},
        ...keyLengthsInput(call),
        ...(forms?.slopes && {alibiSlopes: call.alibiSlopes!}),
        ...(mask && {mask: mask.rows}),
      },
      geometry,
      uniforms: {...(mask && maskUniforms(mask, geometry, layers)), ...uniforms},
      floats: {...logitScale(scale), ...(forms?.softCap && capFloats(call))},
      output: {...output, layers},
      variant: {...callVariant(call), headDim, forms, mask: mask?.dtype},
      fetches: (groupRows + layers) * Math.ceil(headDim / 4) + (mask ? groupRows * layers : 0),
    });
  }
}
