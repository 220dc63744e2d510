import {keyEndText, keyLengthsInput} from './glsl/key_lengths.js';
import {keyBase} from './glsl/score_tile.js';
import {tilesPerBlock} from './glsl/tiles.js';
import type {TensorTexture} from './runtime/program.js';
import {AttentionProgram} from './runtime/program.js';
import type {HeadRange} from './runtime/ranges.js';
import type {RowTexture} from './runtime/row_texture.js';
import type {CallVariant, WebGLCall} from './webgl_call.js';
import {callVariant} from './webgl_call.js';

/** Keys or values as they stand in their tensor, of which only kept blocks are read: for a plan of one block of queries. */
export interface KeptRows {
  tensor: TensorTexture;
  /** Values a row of the tensor. */
  rowSize: number;
  /** Values a row of the copy: not fewer; the rest is 0. */
  columns: number;
  /** Rows of `keyBlocks` values, one row a head: not 0 for key blocks that are kept. */
  kept: RowTexture;
}

interface PermutedHeads extends HeadRange {
  keyIndices: RowTexture;
}

/**
 * Keys or values in the permuted order of some heads: rows `[heads, keyLength]`. Each head has an
 * order of its own, so heads that share keys get a copy each. Rows of padding are zeros: whatever stands there, a weight of 0
 * times it is 0. So are rows of blocks that are not kept, because a tile can reach past the end of its block.
 */
export class PermuteRowsProgram extends AttentionProgram<CallVariant & {fromTensor: boolean}> {
  constructor(call: WebGLCall, source: RowTexture | KeptRows, {keyIndices, firstHead, heads}: PermutedHeads) {
    const {geometry} = call;
    const fromTensor = 'kept' in source;
    super({
      name: 'PermuteRows',
      inputs: {
        ...(fromTensor ? {source: source.tensor, kept: source.kept} : {source}),
        keyIndices,
        ...keyLengthsInput(call),
      },
      geometry,
      uniforms: {
        firstHead,
        ...(fromTensor && {rowSize: source.rowSize}),
        tilesPerBlock: tilesPerBlock(geometry, call.context.drawBuffers),
      },
      output: {rows: heads * geometry.keyLength, columns: source.columns},
      variant: {...callVariant(call), fromTensor},
      fetches: fromTensor ? 6 : 2,
    });
  }

  protected shader({tileKeys, padded, fromTensor}: CallVariant & {fromTensor: boolean}): string {
    return `
// A fragment copies one vector of the row that belongs to its position. Indices stand in the order of tiles.
${keyBase}${padded ? keyEndText : ''}
void compute(int row, int texel) {
  int headInRange = divide(row, keyLength);
  int head = firstHead + headInRange;
  int position = row - headInRange * keyLength;
  int block = divide(position, keyBlockSize);
  ${
    fromTensor
      ? `if (readKept(head, block / 4)[block % 4] == 0.0) {
    result0 = vec4(0.0);
    return;
  }
  `
      : ''
  }int inBlock = position - block * keyBlockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * ${tileKeys} + key;
  int index = int(readKeyIndices(head * keyBlocks + block, column / 4)[column % 4]);
  result0 = ${padded ? 'index >= keyEnd(head) ? vec4(0.0) : ' : ''}${fromTensor ? 'fourSource(sourceAt((keyBase(head) + index) * rowSize + 4 * texel), rowSize - 4 * texel)' : 'readSource(keyBase(head) + index, texel)'};
}`;
  }
}
