/** The value of every half-precision number: a checkpoint has hundreds of millions of these few. */
let values: Float32Array | undefined;

/** The value of a half-precision number by its bits. */
export function float16Value(bits: number): number {
  values ??= Float32Array.from({length: 2 ** 16}, (_, half) => valueOf(half));
  return values[bits];
}

/** IEEE 754 binary16: 1 sign bit, 5 exponent bits (bias 15), 10 fraction bits. */
function valueOf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
