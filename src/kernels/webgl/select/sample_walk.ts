import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {sampleStride} from '../../../attention/sampled_estimate.js';
import {maskUniforms} from '../glsl/attention_mask.js';
import {candidateBlocks, firstBlock, seesFirstKey} from '../glsl/block_ranges.js';
import {keyEndText} from '../glsl/key_lengths.js';
import type {ScoreForms} from '../glsl/score_forms.js';
import {capFloats, scoreForms} from '../glsl/score_forms.js';
import {groupRows, tilesPerBlock} from '../glsl/tiles.js';
import type {Uniforms} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';

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
export function groupsOf({blockSize, queryLength}: BlockGeometry): {ofPhase: number; all: number} {
  const ofPhase = Math.ceil(Math.ceil(Math.min(blockSize, queryLength) / sampleStride) / groupRows);
  return {ofPhase, all: sampleStride * ofPhase};
}

export function sampleUniforms({call, firstHead, firstRow}: SampleWalk): Uniforms {
  const {all, ofPhase} = groupsOf(call.geometry);
  return {firstHead, firstBlockRow: firstRow, groups: all, groupsOfPhase: ofPhase};
}

/** Shader text: `competingKeys(head, queryBlock)`, the slots of the sorted order that compete; padding stands behind them. */
export const competingKeys = ({
  causal,
  padded,
  window,
}: CallVariant) => `${padded ? keyEndText : ''}${window ? `${firstBlock}${seesFirstKey}` : ''}${candidateBlocks(causal, window)}
int competingKeys(int head, int queryBlock) {
  return min(candidateBlocks(queryBlock) * keyBlockSize, ${padded ? 'keyEnd(head)' : 'keyLength'});
}`;

/**
 * Shader text: `originalsOf(head, slots)`, original indices of the keys in slots of the sorted order, −1 for none, for programs with the
 * input `keyIndices` and the uniform `orderTiles`.
 */
export const originalsOf = (tileKeys: number) => `
ivec4 originalsOf(int head, ivec4 slots) {
  ivec4 originals = ivec4(-1);
  for (int i = 0; i < 4; i++) {
    if (slots[i] >= 0) {
      int block = divide(slots[i], keyBlockSize);
      int inBlock = slots[i] - block * keyBlockSize;
      int key = divide(inBlock, orderTiles);
      int column = (inBlock - key * orderTiles) * ${tileKeys} + key;
      originals[i] = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
    }
  }
  return originals;
}`;

/** What of the forms of scores changes the text of programs. */
export interface FormVariant {
  forms?: ScoreForms;
  /** The mask's dtype. */
  mask?: string;
}

/** Texels that a tile of scores takes. */
export const tileFetches = (headDim: number, tileKeys: number, {mask}: FormVariant): number =>
  (groupRows + tileKeys) * Math.ceil(headDim / 4) + (mask ? groupRows * tileKeys : 0);

/** What programs take besides where scores have forms or a mask. */
export function formSpec({call, keyIndices}: SampleWalk): {
  variant: FormVariant;
  inputs: Record<string, RowTexture>;
  uniforms: Uniforms;
  floats: Uniforms;
} {
  const {geometry, mask} = call;
  const {drawBuffers} = call.context;
  const forms = scoreForms(call);
  if (!forms && !mask) return {variant: {}, inputs: {}, uniforms: {}, floats: {}};
  return {
    variant: {...(forms && {forms}), ...(mask && {mask: mask.dtype})},
    inputs: {keyIndices, ...(forms?.slopes && {alibiSlopes: call.alibiSlopes!}), ...(mask && {mask: mask.rows})},
    uniforms: {
      orderTiles: tilesPerBlock(geometry, drawBuffers),
      ...(mask && maskUniforms(mask, geometry, drawBuffers)),
    },
    floats: forms?.softCap ? capFloats(call) : {},
  };
}

/**
 * Shader text: the head, query block and phase of a group, and its rows, counted from the first of the block. Of rows 4a to
 * 4a + 3 one has the phase: the inverse of `phaseOf`.
 */
export const groupAt = `
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
