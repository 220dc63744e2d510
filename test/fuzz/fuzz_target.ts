import type {Random} from './random';

/** What is fed with hostile input. */
export interface FuzzTarget {
  /** Of files of cases. */
  ending: 'bin' | 'json' | 'txt';
  /** A case: something valid, changed a little. */
  make(random: Random): Uint8Array;
  /** Takes a case, or refuses it by throwing; {@link Broken} if it did what it must not. */
  run(input: Uint8Array): Promise<void> | void;
}

/** A promise that was broken, other than by an error, time or memory. */
export class Broken extends Error {}

export const textOf = (input: Uint8Array): string => new TextDecoder('utf-8', {ignoreBOM: true}).decode(input);
export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
export const fileOf = (input: Uint8Array, name: string): File => new File([input as Uint8Array<ArrayBuffer>], name);

/** JSON of a case; of another text an error that is no finding. */
export function jsonOf<T>(input: Uint8Array): T {
  try {
    return JSON.parse(textOf(input)) as T;
  } catch {
    throw new Error('the case is no JSON');
  }
}
