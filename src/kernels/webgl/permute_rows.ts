import type {BlockGeometry} from '../block_geometry.js';
import {AttentionProgram} from './program.js';
import type {RowTexture} from './row_texture.js';
import {keyEndText} from './key_lengths.js';
import {headUniforms, keyBase} from './score_tile.js';

interface PermuteRowsVariant {
  tileKeys: number;
  padded: boolean;
}

/**
 * Keys or values in the permuted order of heads `[firstHead, firstHead + heads)`: rows `[heads, keyLength]`. Each head has an
 * order of its own, so heads that share keys get a copy each. Rows of padding are zeros: whatever stands there, a weight of 0
 * times it is 0.
 */
export class PermuteRowsProgram extends AttentionProgram<PermuteRowsVariant> {
  constructor(
    source: RowTexture,
    keyIndices: RowTexture,
    geometry: BlockGeometry,
    firstHead: number,
    heads: number,
    tileKeys: number,
    keyLengths?: RowTexture,
  ) {
    const {keyLength, blockSize, keyBlocks} = geometry;
    super({
      inputs: {source, keyIndices, ...(keyLengths && {keyLengths})},
      uniforms: {
        ...headUniforms(geometry),
        firstHead: {type: 'int', value: firstHead},
        blocks: {type: 'int', value: keyBlocks},
        blockSize: {type: 'int', value: blockSize},
        tilesPerBlock: {type: 'int', value: Math.ceil(blockSize / tileKeys)},
      },
      output: {rows: heads * keyLength, columns: source.columns},
      variant: {tileKeys, padded: keyLengths !== undefined},
      fetches: 2,
    });
  }

  protected shader({tileKeys, padded}: PermuteRowsVariant): string {
    return `
// A fragment copies one vector of the row that belongs to its position. Indices stand in the order of tiles.
${keyBase}${padded ? keyEndText : ''}
void compute(int row, int texel) {
  int headInRange = divide(row, keyLength);
  int head = firstHead + headInRange;
  int position = row - headInRange * keyLength;
  int block = divide(position, blockSize);
  int inBlock = position - block * blockSize;
  int key = divide(inBlock, tilesPerBlock);
  int column = (inBlock - key * tilesPerBlock) * ${tileKeys} + key;
  int index = int(readKeyIndices(head * blocks + block, column / 4)[column % 4]);
  result0 = ${padded ? 'index >= keyEnd(head) ? vec4(0.0) : ' : ''}readSource(keyBase(head) + index, texel);
}`;
  }
}
