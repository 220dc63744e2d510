/**
 * The value of every half-precision number (IEEE 754 binary16), by its 16 bits: a checkpoint has hundreds of millions
 * of these few.
 */
export function float16Table(): Float32Array {
  table ??= Float32Array.from({length: 2 ** 16}, (_, half) => float16Value(half));
  return table;
}

let table: Float32Array | undefined;

/** 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits. */
function float16Value(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
