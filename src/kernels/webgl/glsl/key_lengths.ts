import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {AttentionContext} from '../runtime/context.js';
import type {Uniforms} from '../runtime/program.js';
import type {RowTexture} from '../runtime/row_texture.js';
import {loadRows} from '../runtime/tensor_rows.js';

/** Key lengths as rows of one value, one row a batch entry; they are not read back, so that shaders clamp them. */
export function loadKeyLengths(context: AttentionContext, keyLengths: TensorInfo): RowTexture {
  return loadRows(context, keyLengths, {inner: 1, piece: 1});
}

/**
 * Shader text: keys of query head `head` of `[batch * heads]` from `keyEnd(head)` on are padding. Needs the input
 * `keyLengths` and the uniforms of `keyEndUniforms`.
 */
export const keyEndText = keyEndOf('keyLength');

/** The same where another uniform holds the key length. */
export function keyEndOf(keyLength: string): string {
  return `
int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(${keyLength})));
}`;
}

export const keyEndUniforms = ({heads, keyLength}: BlockGeometry): Uniforms => ({
  heads: {type: 'int', value: heads},
  keyLength: {type: 'int', value: keyLength},
});

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

export function proxyRangeUniforms(
  {queryLength, keyLength, queryOffset, proxyRows}: BlockGeometry,
  causal: boolean,
): Uniforms {
  return {
    queryLength: {type: 'int', value: queryLength},
    proxyRows: {type: 'int', value: proxyRows},
    hasPositions: {type: 'int', value: causal || queryLength === keyLength ? 1 : 0},
    firstPosition: {type: 'int', value: causal ? queryOffset : 0},
  };
}
