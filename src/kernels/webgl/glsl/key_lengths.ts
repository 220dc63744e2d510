import type {RowTexture} from '../runtime/row_texture.js';

/** Input of the texts below, where there are key lengths: one row of one value a batch entry. */
export const keyLengthsInput = ({keyLengths}: {keyLengths?: RowTexture}) => keyLengths && {keyLengths};

/**
 * Shader text: keys of query head `head` of `[batch * heads]` from `keyEnd(head)` on are padding. Lengths are not read
 * back, so that shaders clamp them.
 */
export const keyEndText = keyEndOf('keyLength');

/** The same where another uniform holds the key length. */
export function keyEndOf(keyLength: string): string {
  return `
int keyEnd(int head) {
  return int(clamp(readKeyLengths(head / heads, 0).x, 0.0, float(${keyLength})));
}`;
}
