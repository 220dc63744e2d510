import type {ProgramInput} from '../runtime/program_spec.js';
import type {WebGPUCall} from '../webgpu_call.js';

/** What the text of programs that read keys depends on. */
export interface KeysVariant {
  headDim: number;
  /** Whether there are key lengths. */
  padded: boolean;
}

export const keysVariant = ({geometry, keyLengths}: WebGPUCall): KeysVariant => ({
  headDim: geometry.headDim,
  padded: keyLengths !== undefined,
});

/** The key lengths as an input of a program, if there are some: one storage buffer more. */
export const keyLengthsInput = ({keyLengths}: WebGPUCall): Record<string, ProgramInput> =>
  keyLengths ? {keyLengths: {tensor: keyLengths}} : {};

/** A function: keys of a head's batch entry that are not padding. Lengths are clamped here, as nobody reads them back. */
export function keyEnd(heads: string, keyLength: string): string {
  return `
fn keyEnd(head : i32) -> i32 {
  return clamp(keyLengths[head / ${heads}], 0, ${keyLength});
}`;
}

/** A function: the proxy rows [x, y) of a head's batch entry, `proxyRange` of `block_geometry.ts`. Needs `keyEnd`. */
export function proxyRange(positions: boolean): string {
  return `
fn proxyRange(head : i32) -> vec2<i32> {
  let end = ${positions ? 'clamp(keyEnd(head) - uniforms.queryOffset, 0, uniforms.queryShape.z)' : 'uniforms.queryShape.z'};
  return vec2<i32>(max(0, end - uniforms.proxyRows), end);
}`;
}
