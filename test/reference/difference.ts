/**
 * Σ |difference| over Σ |expected|, or over Σ of the `magnitudes` of what cancelled out to it. They count as 1e-20 a value at the
 * least: a sink can leave less than float32 holds.
 */
export function difference(actual: ArrayLike<number>, expected: ArrayLike<number>, magnitudes = expected): number {
  let [differences, sum] = [0, 1e-20 * expected.length];
  for (let i = 0; i < expected.length; ++i) {
    differences += Math.abs(actual[i] - expected[i]);
    sum += Math.abs(magnitudes[i]);
  }
  return differences / sum;
}
