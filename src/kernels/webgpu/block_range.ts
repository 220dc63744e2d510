import type {ProgramSpec} from './program.js';
import type {BlockGeometry} from '../block_geometry.js';

/** Uniforms that the functions of this file read. */
export function blockRangeUniforms(geometry: BlockGeometry): ProgramSpec<never>['uniforms'] {
  const {blockSize, segmentSize, queryLength, keyLength, queryOffset, keyBlocks} = geometry;
  return {
    blockSize: {type: 'i32', value: blockSize},
    segmentSize: {type: 'i32', value: segmentSize},
    queryLength: {type: 'i32', value: queryLength},
    keyLength: {type: 'i32', value: keyLength},
    queryOffset: {type: 'i32', value: queryOffset},
    keyBlocks: {type: 'i32', value: keyBlocks},
  };
}

/**
 * Shader text: key blocks [0, scoredBlocks) compete for a query block, key blocks [0, visibleBlocks) can hold a key that it
 * may see. The functions of the same names in `block_geometry.ts`.
 */
export function blockRange(causal: boolean): string {
  if (!causal) {
    return `
fn scoredBlocks(queryBlock : i32) -> i32 { return uniforms.keyBlocks; }
fn visibleBlocks(queryBlock : i32) -> i32 { return uniforms.keyBlocks; }`;
  }
  return `
fn scoredBlocks(queryBlock : i32) -> i32 {
  let segment = (uniforms.queryOffset + queryBlock * uniforms.blockSize) / uniforms.segmentSize;
  return segment * (uniforms.segmentSize / uniforms.blockSize);
}
fn visibleBlocks(queryBlock : i32) -> i32 {
  let lastRow = min((queryBlock + 1) * uniforms.blockSize, uniforms.queryLength) - 1;
  let segments = (uniforms.queryOffset + lastRow) / uniforms.segmentSize + 1;
  return min(segments * (uniforms.segmentSize / uniforms.blockSize), uniforms.keyBlocks);
}`;
}

/** Shader text: keys of the batch entry of a head that are not padding. Reads `uniforms.keyLength`. */
export function lengthOf(padded: boolean): string {
  return `
fn lengthOf(head : i32, heads : i32) -> i32 {
  return ${padded ? 'clamp(keyLengths[head / heads], 0, uniforms.keyLength)' : 'uniforms.keyLength'};
}`;
}

/**
 * Shader text: the first query block that holds a proxy row of a batch entry of so many keys, under a causal mask; past all
 * where none does. The function of the same name in `block_geometry.ts`. Reads `uniforms.proxyRows` as well.
 */
export const firstProxyBlock = `
fn firstProxyBlock(length : i32) -> i32 {
  let end = clamp(length - uniforms.queryOffset, 0, uniforms.queryLength);
  return select(0x7fffffff, max(0, end - uniforms.proxyRows) / uniforms.blockSize, end > 0);
}`;
