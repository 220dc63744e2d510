import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import {rowsHavePositions} from '../../../attention/block_geometry.js';
import type {ProgramSpec} from '../runtime/program.js';

/** The key lengths as an input of a program, if there are some: one storage buffer more. */
export function keyLengthsInput(keyLengths?: TensorInfo): ProgramSpec<never>['inputs'] {
  return keyLengths ? {keyLengths: {tensor: keyLengths, components: 1}} : {};
}

/** A function: keys of a head's batch entry that are not padding. Lengths are clamped here, as nobody reads them back. */
export function keyEnd(heads: string, keyLength: string): string {
  return `
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / ${heads}], 0, ${keyLength});
}`;
}

/** What `proxyRangeOf` needs from the host. */
export interface ProxyRangeVariant {
  /** Whether there are key lengths. */
  padded: boolean;
  /** Whether a row that stands past the length of its entry is padding. Says nothing without key lengths. */
  positions: boolean;
}

export function proxyRangeVariant(
  geometry: BlockGeometry,
  causal: boolean,
  keyLengths?: TensorInfo,
): ProxyRangeVariant {
  const padded = keyLengths !== undefined;
  return {padded, positions: padded && rowsHavePositions(geometry, causal)};
}

export function proxyRangeUniforms(
  {queryOffset, proxyRows}: BlockGeometry,
  causal: boolean,
  keyLengths?: TensorInfo,
): ProgramSpec<never>['uniforms'] {
  const offset = {queryOffset: {type: 'i32' as const, value: causal ? queryOffset : 0}};
  return {proxyRows: {type: 'i32', value: proxyRows}, ...(keyLengths && offset)};
}

/** A function: the proxy rows [x, y) of a head's batch entry, `proxyRange` of `block_geometry.ts`. Needs `keyEnd`. */
export function proxyRange(positions: boolean, queryLength: string): string {
  return `
fn proxyRange(head : i32) -> vec2<i32> {
  let end = ${positions ? `clamp(keyEnd(head) - uniforms.queryOffset, 0, ${queryLength})` : queryLength};
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
}`;
}
