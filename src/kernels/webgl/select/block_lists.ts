import {visibleBlocks} from '../glsl/block_ranges.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {CallVariant, WebGLCall} from '../webgl_call.js';

/**
 * A dense mask, rows of `keyBlocks` values, as block lists: the inverse of `blockMask`. Under a causal mask without the
 * blocks that no row may see, which an extended plan can have; attention has no rounds for them.
 */
export function blockLists(call: WebGLCall, mask: RowTexture): RowTexture {
  return new BlockListsProgram(call, mask).run(call.context);
}

/** The indices of the kept blocks that are visible, behind their number. */
export class BlockListsProgram extends AttentionProgram<Pick<CallVariant, 'causal' | 'window'>> {
  constructor({geometry, causal}: WebGLCall, kept: RowTexture) {
    super({
      name: 'BlockLists',
      inputs: {kept},
      geometry,
      output: {rows: kept.rows, columns: kept.columns + 1},
      variant: {causal, ...(geometry.window !== undefined && {window: true})},
      fetches: kept.texels,
    });
  }

  protected shader({causal, window}: Pick<CallVariant, 'causal' | 'window'>): string {
    return `
// A fragment finds four entries of a list, by counting through the row.${visibleBlocks(causal, window)}
void compute(int row, int texel) {
  ivec2 at = keptAt(row);
  ivec4 places = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 entries = ivec4(0);
  int count = 0;
  int visible = visibleBlocks(row % queryBlocks);
  for (int t = 0; 4 * t < visible; t++) {
    vec4 kept = fetchKept(at, t, 0);
    for (int c = 0; c < 4; c++) {
      if (kept[c] != 0.0 && 4 * t + c < visible) {
        ++count;
        entries += ivec4(equal(places, ivec4(count))) * (4 * t + c);
      }
    }
  }
  if (texel == 0) {
    entries.x = count;
  }
  result0 = vec4(entries);
}`;
  }
}
