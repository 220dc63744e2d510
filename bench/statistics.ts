/** Spread of repeated timings, in milliseconds. */
export interface Timing {
  median: number;
  /** Quartiles. */
  low: number;
  high: number;
  /** How many timings; each is the mean of `calls` calls in a row. */
  timings: number;
  calls: number;
}

export function timing(samples: readonly number[], calls: number): Timing {
  return {
    median: quantile(samples, 0.5),
    low: quantile(samples, 0.25),
    high: quantile(samples, 0.75),
    timings: samples.length,
    calls,
  };
}

/** Linear between the two nearest samples. */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (sorted[Math.ceil(at)] - sorted[below]) * (at - below);
}

export const median = (samples: readonly number[]): number => quantile(samples, 0.5);

/** Σ|a − b| / Σ|b|. */
export function relativeL1(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < b.length; ++i) {
    difference += Math.abs(a[i] - b[i]);
    size += Math.abs(b[i]);
  }
  return difference / size;
}
