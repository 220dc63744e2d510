import type {Tensor, TensorInfo} from '@tensorflow/tfjs-core';
import {tensor} from '@tensorflow/tfjs-core';

/** The kernel: two float16 a word, the first in the low half; rounded to the nearest, ties to even, saturated where finite. */
export function packFloat16(x: TensorInfo): TensorInfo {
  const values = (x as Tensor).dataSync<'float32'>();
  const words = Int32Array.from({length: values.length / 2}, (_, i) =>
    join(bitsOf(values[2 * i]), bitsOf(values[2 * i + 1])),
  );
  return tensor(words, [...x.shape.slice(0, -1), x.shape[x.shape.length - 1] / 2], 'int32');
}

/** The values of packed words. */
export function unpackFloat16(words: Int32Array): Float32Array {
  const values = new Float32Array(2 * words.length);
  words.forEach((word, i) => {
    values[2 * i] = float16Value(word & 0xffff);
    values[2 * i + 1] = float16Value(word >>> 16);
  });
  return values;
}

const join = (low: number, high: number) => low | (high << 16);

/** Bits of the fraction of a float16, and the exponent of its smallest normal numbers. */
const fractionBits = 10;
const leastExponent = -14;
const largest = 65504;

function bitsOf(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  if (Number.isNaN(x)) return 0x7e00;
  if (Math.abs(x) === Infinity) return sign | 0x7c00;
  const magnitude = Math.min(Math.abs(x), largest);
  const exponent = Math.max(leastExponent, Math.floor(Math.log2(magnitude || Number.MIN_VALUE)));
  const steps = roundToEven(magnitude * 2 ** (fractionBits - exponent));
  // Steps of 2¹⁰ and more are the next exponent's: their bits add up to that.
  return sign | (((exponent - leastExponent) << fractionBits) + steps);
}

function roundToEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** The number that 16 bits are (IEEE 754 binary16): a sign, 5 bits of exponent, 10 of fraction. */
export function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> fractionBits) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  const steps = exponent === 0 ? fraction : fraction + 2 ** fractionBits;
  return sign * steps * 2 ** (Math.max(exponent, 1) + leastExponent - 1 - fractionBits);
}
