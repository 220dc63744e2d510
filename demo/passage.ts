import type {Tokenizer} from '@huggingface/tokenizers';
import {Failure} from '../runner/failure';
import {randomNumbers} from '../runner/random_numbers';
import {encodeBeginning} from '../runner/tokenizer';

/** Consecutive tokens of a text. */
export interface Passage {
  ids: number[];
  /** How many tokens precede each sentence boundary but the first. */
  boundaries: number[];
}

/**
 * A sentence ends at a full stop, question or exclamation mark that is neither an initial nor a title; in scripts without capitals, at
 * their own marks (Chinese and Japanese, Arabic, Urdu, Hindi).
 */
export const SENTENCE_END =
  /(?<!\b(?:Mr|Mrs|Dr|St|Fr|Rev|Esq|[A-Z]))[.!?]["')]*(?= ["'(]?[A-Z])|[。！？؟۔।]["')”’」』»]*(?=[^"')”’」』»])/gu;

/** English prose takes about 4 characters a token; 8 leaves room to spare for what follows the place that is chosen. */
const CHARACTERS_PER_TOKEN = 8;

/**
 * `length` tokens of a text, from a paragraph that the seed chooses among those with enough text after them, or from the
 * beginning.
 *
 * @throws Failure if the text is too short.
 */
export function takePassage(tokenizer: Tokenizer, book: string, seed: number, length: number): Passage {
  const text = book.slice(chooseStart(book, seed, length));
  const ids: number[] = [];
  const boundaries: number[] = [];
  // A text without the end of a sentence may be of any length; of what is left no more is encoded than is needed.
  const add = (part: string) => {
    for (const id of encodeBeginning(tokenizer, part, length - ids.length).ids) ids.push(id);
  };
  let start = 0;
  for (const {index, 0: mark} of text.matchAll(SENTENCE_END)) {
    if (ids.length >= length) break;
    // Tokens never span the end of a sentence, where a word with its leading space begins: encoding sentence
    // by sentence gives the ids of the whole.
    const end = index + mark.length;
    add(text.slice(start, end));
    start = end;
    if (ids.length <= length) boundaries.push(ids.length);
  }
  // What follows the last sentence that another one follows; a text without sentences is all of it.
  if (ids.length < length) add(text.slice(start));
  if (ids.length < length) {
    throw new Failure(
      'TextTooShortError',
      `the text is too short for a prompt with ${length} tokens of it; it has ${ids.length}`,
    );
  }
  return {ids: ids.slice(0, Math.max(0, length)), boundaries};
}

/** Index of a paragraph with enough text after it: any such one, as the seed decides. */
function chooseStart(book: string, seed: number, tokens: number): number {
  const last = Math.max(0, book.length - tokens * CHARACTERS_PER_TOKEN);
  const starts = [...book.matchAll(/(?<=\n\r?\n)["']?[A-Z](?=[^\r\n]{80})/g)].map((match) => match.index);
  const roomy = starts.filter((index) => index <= last);
  // The fact takes the seed's first three numbers; the passage must not hang together with it.
  const random = randomNumbers(seed + 0x51ed270b);
  return roomy[Math.floor(random() * roomy.length)] ?? 0;
}
