import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/**
 * The transpose of the block lists: rows `[batch * heads * key blocks]`, for each block of permuted keys the number of query
 * blocks that attend to it, then these in ascending order; what follows them is undefined.
 */
export class QueryListsProgram extends AttentionProgram<object> {
  constructor({geometry}: WebGLCall, blockMask: RowTexture) {
    const {queryBlocks, keyBlocks} = geometry;
    super({
      name: 'QueryLists',
      inputs: {blockMask},
      geometry,
      output: {rows: (blockMask.rows / queryBlocks) * keyBlocks, columns: queryBlocks + 1},
      variant: {},
      fetches: queryBlocks,
    });
  }

  protected shader(): string {
    return `
// A fragment goes down the column of a key block in the mask and keeps the four entries of its texel.
void compute(int row, int texel) {
  int head = divide(row, keyBlocks);
  int keyBlock = row - head * keyBlocks;
  ivec4 entries = ivec4(0, 1, 2, 3) + 4 * texel;
  vec4 four = vec4(0.0);
  int count = 0;
  for (int queryBlock = 0; queryBlock < queryBlocks; queryBlock++) {
    if (readBlockMask(head * queryBlocks + queryBlock, keyBlock / 4)[keyBlock % 4] > 0.0) {
      count++;
      four = mix(four, vec4(queryBlock), equal(entries, ivec4(count)));
    }
  }
  if (texel == 0) {
    four.x = float(count);
  }
  result0 = four;
}`;
  }
}
