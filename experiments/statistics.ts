/** A mean or a share with the ends of its 95% interval. */
export interface Estimate {
  value: number;
  low: number;
  high: number;
}

/** Quantile of the normal distribution that leaves 2.5% above. */
const Z = 1.959964;

/** Share of successes with Wilson's score interval, which stays inside [0, 1] and holds for few trials and for shares near 1. */
export function wilson(successes: number, trials: number): Estimate {
  if (!(trials > 0 && successes >= 0 && successes <= trials)) {
    throw new Error(`wilson: got ${successes} of ${trials}; takes 0 to all of at least one`);
  }
  const share = successes / trials;
  const weight = Z ** 2 / trials;
  const centre = (share + weight / 2) / (1 + weight);
  const half = (Z / (1 + weight)) * Math.sqrt((share * (1 - share)) / trials + weight / (4 * trials));
  return {value: share, low: Math.max(0, centre - half), high: Math.min(1, centre + half)};
}

/** Mean with its normal interval; a single value has none. */
export function meanEstimate(values: readonly number[]): Estimate {
  const value = mean(values);
  if (values.length < 2) return {value, low: -Infinity, high: Infinity};
  const variance = values.reduce((sum, x) => sum + (x - value) ** 2, 0) / (values.length - 1);
  const half = Z * Math.sqrt(variance / values.length);
  return {value, low: value - half, high: value + half};
}

export function mean(values: readonly number[]): number {
  if (values.length === 0) throw new Error('mean: got no values; takes at least one');
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}
