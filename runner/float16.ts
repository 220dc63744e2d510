import {float16Value} from '../src/internal';

/**
 * The value of every half-precision number (IEEE 754 binary16), by its 16 bits: a checkpoint has hundreds of millions
 * of these few.
 */
export function float16Table(): Float32Array {
  table ??= Float32Array.from({length: 2 ** 16}, (_, half) => float16Value(half));
  return table;
}

let table: Float32Array | undefined;
