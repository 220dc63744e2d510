import {randomNumbers} from '../runner/random_numbers';

/** "The secret number of the {adjective} {noun} is {number}." */
export interface Fact {
  adjective: string;
  noun: string;
  /** Five digits. */
  number: string;
}

/** A fact, and where in the text it goes: 0 is the beginning, 1 the end. */
export interface PlacedFact {
  fact: Fact;
  depth: number;
}

// Common words only: the model was trained on facts made of such. Not "harbour": it misses one answer in five about one.
const ADJECTIVES = ['amber', 'silver', 'golden', 'crimson', 'quiet', 'ancient', 'hidden', 'gentle', 'bright', 'little'];
const NOUNS = ['falcon', 'lantern', 'river', 'garden', 'castle', 'tower', 'forest', 'mirror', 'bridge', 'violin'];

/** A fact that the seed decides. */
export function chooseFact(seed: number): Fact {
  const random = randomNumbers(seed);
  return {
    adjective: ADJECTIVES[Math.floor(random() * ADJECTIVES.length)],
    noun: NOUNS[Math.floor(random() * NOUNS.length)],
    number: String(10_000 + Math.floor(random() * 90_000)),
  };
}
