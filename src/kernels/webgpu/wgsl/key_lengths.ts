import type {WebGPUCall} from '../webgpu_call.js';

/** What the text of programs that read keys depends on. */
export interface KeysVariant {
  headDim: number;
  /** Whether there are key lengths: one storage buffer more, `keyLengths`. */
  padded: boolean;
}

export const keysVariant = ({geometry, keyLengths}: WebGPUCall): KeysVariant => ({
  headDim: geometry.headDim,
  padded: keyLengths !== undefined,
});

/** A function: keys of a head's batch entry that are not padding. Lengths are clamped here, as nobody reads them back. */
export const keyEnd = ({padded}: Pick<KeysVariant, 'padded'>): string => `
fn keyEnd(head : i32) -> i32 {
  return ${padded ? 'clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyLength)' : 'uniforms.keyLength'};
}`;
