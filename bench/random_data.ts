/**
 * Seeded, nearly normal values, made fast enough for hundreds of millions of them: the four bytes of a random word
 * added up take 1,021 different values, so that one look-up per value gives float32 and float16 alike.
 */

const VALUES = 4 * 255 + 1;

/** Variance of a uniform byte is (256² − 1) / 12; four of them add up. */
const DEVIATION = Math.sqrt((4 * (256 * 256 - 1)) / 12);

const floats = Float32Array.from({length: VALUES}, (_, sum) => (sum - (VALUES - 1) / 2) / DEVIATION);
const halves = Uint16Array.from(floats, float16Bits);

/** `size` values of mean 0 and variance 1. The same seed gives the same values in both forms, up to rounding. */
export function randomFloats(size: number, seed: number): Float32Array {
  return fill(new Float32Array(size), floats, seed);
}

/** The same as bit patterns of float16. */
export function randomHalves(size: number, seed: number): Uint16Array {
  return fill(new Uint16Array(size), halves, seed);
}

function fill<T extends Float32Array | Uint16Array>(out: T, table: T, seed: number): T {
  const next = randomWords(seed);
  for (let i = 0; i < out.length; ++i) {
    const word = next();
    out[i] = table[(word & 255) + ((word >>> 8) & 255) + ((word >>> 16) & 255) + (word >>> 24)];
  }
  return out;
}

/** Uniform numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  const next = randomWords(seed);
  return () => (next() >>> 0) / 2 ** 32;
}

/** 32-bit words of the generator xorshift128 by Marsaglia, seeded by a multiplicative hash. */
function randomWords(seed: number): () => number {
  let [x, y, z, w] = [1, 2, 3, 4].map((i) => Math.imul(seed + i, 0x9e3779b1) ^ Math.imul(i, 0x85ebca6b));
  const next = () => {
    const t = x ^ (x << 11);
    x = y;
    y = z;
    z = w;
    w = w ^ (w >>> 19) ^ t ^ (t >>> 8);
    return w;
  };
  // Neighbouring seeds start alike; a few rounds part them.
  for (let i = 0; i < 32; ++i) next();
  return next;
}

/** Nearest float16 of a value in its normal range or zero; below 2⁻¹⁴ it rounds to zero or the smallest normal. */
function float16Bits(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  const sign = (bits >>> 16) & 0x8000;
  const rounded = (bits & 0x7fffffff) + 0x1000;
  const half = (rounded >>> 13) - ((127 - 15) << 10);
  return half <= 0 ? sign : sign | half;
}
