import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/** Block lists as a dense mask: rows of `keyBlocks` values, 1 where the key block is selected. */
export function blockMask({context}: WebGLCall, blockLists: RowTexture): RowTexture {
  return new BlockMaskProgram(blockLists).run(context);
}

export class BlockMaskProgram extends AttentionProgram<object> {
  constructor(blockLists: RowTexture) {
    super({
      name: 'BlockMask',
      inputs: {blockLists},
      output: {rows: blockLists.rows, columns: blockLists.columns - 1},
      variant: {},
      fetches: blockLists.texels,
    });
  }

  protected shader(): string {
    return `
// A fragment looks for four blocks in the list.
void compute(int row, int texel) {
  ivec2 at = blockListsAt(row);
  int count = int(fetchBlockLists(at, 0, 0).x);
  ivec4 blocks = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 found = ivec4(0);
  // Entry 0 is the number of entries that follow.
  for (int entry = 1; entry <= count; entry++) {
    found += ivec4(equal(blocks, ivec4(int(fetchBlockLists(at, entry / 4, 0)[entry % 4]))));
  }
  result0 = vec4(found);
}`;
  }
}
