import type {Tokenizer} from '@huggingface/tokenizers';

/** "The secret number of the {adjective} {noun} is {number}." */
export interface Fact {
  adjective: string;
  noun: string;
  /** Five digits. */
  number: string;
}

export interface NeedleRequest {
  /** Length of the whole prompt, in tokens. */
  length: number;
  /** Where in the text the fact goes: 0 is its beginning, 1 its end. */
  depth: number;
  /** Chooses the passage, and the fact where none is given. */
  seed: number;
  fact?: Fact;
}

/** A prompt: running text with one fact inserted, then a question about the fact. */
export interface Needle {
  /** Exactly as many as were asked for. */
  ids: number[];
  fact: Fact;
  /** The number that answers the question. */
  answer: string;
  /** The inserted sentence with its leading space, as the model reads it. */
  sentence: string;
  question: string;
  /** The text up to the fact, and the text from the fact to the question. */
  before: string;
  after: string;
  /** Tokens of text before the fact. */
  position: number;
}

// Common words only: the model was trained on facts made of such. Not "harbour": it misses one answer in five about one.
const ADJECTIVES = ['amber', 'silver', 'golden', 'crimson', 'quiet', 'ancient', 'hidden', 'gentle', 'bright', 'little'];
const NOUNS = ['falcon', 'lantern', 'river', 'garden', 'castle', 'tower', 'forest', 'mirror', 'bridge', 'violin'];

/** A sentence ends at a full stop, question or exclamation mark that is neither an initial nor a title. */
export const SENTENCE_END = /(?<!\b(?:Mr|Mrs|Dr|St|Fr|Rev|Esq|[A-Z]))[.!?]["')]*(?= ["'(]?[A-Z])/g;

/** English prose of the model's tokenizer takes about 4 characters a token; 8 leaves room to spare. */
const CHARACTERS_PER_TOKEN = 8;

/** A fact that the seed decides. */
export function chooseFact(seed: number): Fact {
  const random = randomNumbers(seed);
  return {
    adjective: ADJECTIVES[Math.floor(random() * ADJECTIVES.length)],
    noun: NOUNS[Math.floor(random() * NOUNS.length)],
    number: String(10_000 + Math.floor(random() * 90_000)),
  };
}

/** The sentence that states a fact, as the model was trained to read it: inserted where a sentence has ended. */
export function factSentence(fact: Fact): string {
  return ` The ${subject(fact)} is ${fact.number}.`;
}

/** The question that the model was trained to answer; it ends the prompt. */
export function factQuestion(fact: Fact): string {
  return `\n\nQuestion: What is the ${subject(fact)}?\nAnswer:`;
}

export function subject({adjective, noun}: Fact): string {
  return `secret number of the ${adjective} ${noun}`;
}

/**
 * Builds a prompt of exactly `length` tokens out of a book, the same for the same request.
 *
 * The passage starts at a paragraph, the fact goes to the sentence boundary nearest to the depth, and the
 * text is cut where the question has to begin, as a training sequence would be.
 */
export function buildNeedle(tokenizer: Tokenizer, book: string, request: NeedleRequest): Needle {
  const {length, depth, seed} = request;
  if (!Number.isInteger(length) || length < 1) {
    throw new Error(`length is ${length}; accepted: a positive integer, in tokens`);
  }
  if (!(depth >= 0 && depth <= 1)) {
    throw new Error(`depth is ${depth}; accepted: 0 (beginning of the text) to 1 (end)`);
  }
  const fact = checkFact(request.fact ?? chooseFact(seed));
  const sentence = factSentence(fact);
  const question = factQuestion(fact);
  const sentenceIds = encode(tokenizer, sentence);
  const questionIds = encode(tokenizer, question);

  const textLength = length - sentenceIds.length - questionIds.length;
  const passage = takePassage(tokenizer, book, seed, textLength);
  if (passage.boundaries.length === 0) {
    const taken = sentenceIds.length + questionIds.length;
    throw new Error(
      `length is ${length} tokens, of which fact and question take ${taken}: ` +
        'the rest is too short for one sentence of the book; accepted: 128 and more',
    );
  }
  const wanted = depth * textLength;
  const position = passage.boundaries.reduce((best, at) =>
    Math.abs(at - wanted) < Math.abs(best - wanted) ? at : best,
  );
  const [before, after] = [passage.ids.slice(0, position), passage.ids.slice(position)];
  return {
    ids: [...before, ...sentenceIds, ...after, ...questionIds],
    fact,
    answer: fact.number,
    sentence,
    question,
    before: tokenizer.decode(before),
    after: tokenizer.decode(after),
    position,
  };
}

/** `length` tokens of the book, and how many of them precede each sentence boundary but the first. */
function takePassage(
  tokenizer: Tokenizer,
  book: string,
  seed: number,
  length: number,
): {ids: number[]; boundaries: number[]} {
  const text = book.slice(chooseStart(book, seed, length));
  const ids: number[] = [];
  const boundaries: number[] = [];
  let start = 0;
  for (const {index, 0: mark} of text.matchAll(SENTENCE_END)) {
    if (ids.length >= length) break;
    // Tokens never span the end of a sentence, where a word with its leading space begins: encoding sentence
    // by sentence gives the ids of the whole.
    ids.push(...encode(tokenizer, text.slice(start, index + mark.length)));
    start = index + mark.length;
    if (ids.length <= length) boundaries.push(ids.length);
  }
  if (ids.length < length) {
    throw new Error(`the book is too short for a prompt with ${length} tokens of text; it has about ${ids.length}`);
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
  return roomy[Math.floor(random() * roomy.length)] ?? starts[0] ?? 0;
}

function checkFact(fact: Fact): Fact {
  for (const field of ['adjective', 'noun'] as const) {
    if (!/^[a-z]{2,20}$/.test(fact[field])) {
      throw new Error(`the ${field} is "${fact[field]}"; accepted: one word of 2 to 20 letters from a to z`);
    }
  }
  if (!/^[1-9][0-9]{4}$/.test(fact.number)) {
    throw new Error(`the number is "${fact.number}"; accepted: five digits, the first not 0`);
  }
  return fact;
}

/** Token ids of a text, without special tokens. */
export function encode(tokenizer: Tokenizer, text: string): number[] {
  return tokenizer.encode(text, {add_special_tokens: false}).ids;
}

/** Uniform numbers in [0, 1) (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
