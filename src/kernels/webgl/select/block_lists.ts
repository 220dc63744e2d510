import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {candidateUniforms, visibleBlocks} from '../glsl/block_ranges.js';
import {AttentionProgram} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import type {WebGLCall} from '../webgl_call.js';

/**
 * A dense mask, rows of `keyBlocks` values, as block lists: the inverse of `blockMask`. Under a causal mask without the
 * blocks that no row may see, which an extended plan can have; attention has no rounds for them.
 */
export function blockLists({context, geometry, causal}: WebGLCall, mask: RowTexture): RowTexture {
  return new BlockListsProgram(mask, causal ? geometry : undefined).run(context);
}

interface BlockListsVariant {
  visibleOnly: boolean;
}

/** The indices of the kept blocks, behind their number; given the geometry of a causal mask, of those that are visible. */
export class BlockListsProgram extends AttentionProgram<BlockListsVariant> {
  constructor(kept: RowTexture, causalGeometry?: BlockGeometry) {
    super({
      name: 'BlockLists',
      inputs: {kept},
      uniforms: {...(causalGeometry && candidateUniforms(causalGeometry, true))},
      output: {rows: kept.rows, columns: kept.columns + 1},
      variant: {visibleOnly: causalGeometry !== undefined},
      fetches: kept.texels,
    });
  }

  protected shader({visibleOnly}: BlockListsVariant): string {
    return `
// A fragment finds four entries of a list, by counting through the row. What a row has beyond its columns is 0.${visibleOnly ? visibleBlocks(true) : ''}
void compute(int row, int texel) {
  ivec2 at = keptAt(row);
  ivec4 places = ivec4(0, 1, 2, 3) + 4 * texel;
  ivec4 entries = ivec4(0);
  int count = 0;${visibleOnly ? '\n  int visible = visibleBlocks(row % queryBlocks);' : ''}
  for (int t = 0; t < keptTexels; t++) {
    vec4 kept = fetchKept(at, t, 0);
    for (int c = 0; c < 4; c++) {
      if (kept[c] != 0.0${visibleOnly ? ' && 4 * t + c < visible' : ''}) {
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
