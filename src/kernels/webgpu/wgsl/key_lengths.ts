import type {ProgramInput} from '../runtime/program_spec.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {rowInputs} from './rows.js';

/** What the text of programs that read keys depends on. */
export interface KeysVariant {
  headDim: number;
  /** Whether there are key lengths: one storage buffer more, `keyLengths`, or they are among `headForms`. */
  padded: boolean;
  perHead?: true;
}

export const keysVariant = ({geometry, keyLengths, headForms}: WebGPUCall): KeysVariant => ({
  headDim: geometry.headDim,
  padded: keyLengths !== undefined,
  ...(headForms && {perHead: true}),
});

/** The inputs that say what is known of a head, as far as a program reads them. */
export const headInputs = (
  {keyLengths, headForms}: WebGPUCall,
  {padded, perHead, slopes, sinks}: Pick<KeysVariant, 'padded' | 'perHead'> & {slopes?: true; sinks?: true},
): Record<string, ProgramInput | undefined> =>
  perHead
    ? rowInputs(padded || slopes || sinks ? {headForms: headForms!} : {})
    : {keyLengths: padded ? keyLengths : undefined};

/** A function: keys of a head's batch entry that are not padding. Lengths are clamped here, as nobody reads them back. */
export const keyEnd = ({padded, perHead}: Pick<KeysVariant, 'padded' | 'perHead'>): string => `
fn keyEnd(head : i32) -> i32 {
  return ${padded ? (perHead ? 'i32(headForms[head].x)' : 'clamp(keyLengths[head / uniforms.heads], 0, uniforms.keyLength)') : 'uniforms.keyLength'};
}`;
