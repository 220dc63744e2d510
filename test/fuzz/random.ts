import {randomNumbers} from '../../runner/random_numbers';

/** Choices that a seed decides. */
export class Random {
  private readonly next: () => number;

  constructor(seed: number) {
    this.next = randomNumbers(seed);
  }

  /** An integer from 0 to below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }

  /** Small numbers more often than large ones. */
  count(most: number): number {
    return Math.floor(this.next() ** 3 * (most + 1));
  }
}
