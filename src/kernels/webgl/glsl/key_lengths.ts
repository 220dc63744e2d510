import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import type {Uniforms} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';

/** Input of the texts below, where there are key lengths: one row of one value a batch entry. */
export const keyLengthsInput = ({keyLengths}: {keyLengths?: RowTexture}) => keyLengths && {keyLengths};

/**
 * Shader text: keys of query head `head` of `[batch * heads]` from `keyEnd(head)` on are padding. Lengths are not read
 * back, so that shaders clamp them. Needs the input `keyLengths` and the uniforms of `keyEndUniforms`.
 */
export const keyEndText = keyEndOf('keyLength');

/** The same where another uniform holds the key length. */
export function keyEndOf(keyLength: string): string {
  return `
int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(${keyLength})));
}`;
}

export const keyEndUniforms = ({heads, keyLength}: BlockGeometry): Uniforms => ({heads, keyLength});

/**
 * Shader text: `proxyRange(head)`, first and end of the proxy rows of a batch entry whose keys may be padding, as
 * `block_geometry.ts` has them; none where there are no keys either. Needs `keyEndText` and the uniforms of
 * `proxyRangeUniforms`.
 */
export const proxyRangeText = `
ivec2 proxyRange(int head) {
  int end = keyEnd(head);
  if (hasPositions == 1) {
    end = clamp(end - firstPosition, 0, queryLength);
  } else if (end > 0) {
    end = queryLength;
  }
  return ivec2(max(end - proxyRows, 0), end);
}`;

export function proxyRangeUniforms(geometry: BlockGeometry, causal: boolean): Uniforms {
  const {queryLength, queryOffset, proxyRows} = geometry;
  return {
    queryLength,
    proxyRows,
    hasPositions: Number(rowsHavePositions(geometry, causal)),
    firstPosition: causal ? queryOffset : 0,
  };
}
