import type {Tokenizer} from '@huggingface/tokenizers';
import {chooseFact, type Fact, type PlacedFact} from './fact';
import {Failure} from '../runner/failure';
import {takePassage, type Passage} from './passage';
import {decode, encodePlain} from '../runner/tokenizer';

export interface NeedleRequest {
  /** Length of the whole prompt, in tokens. */
  length: number;
  /** Where in the text the fact goes: 0 is its beginning, 1 its end. */
  depth: number;
  /** Chooses the passage, and the fact where none is given. */
  seed: number;
  fact?: Fact;
  /** How a fact is asked for. Default: {@link factQuestion}. */
  question?: (fact: Fact) => string;
  /** Facts that are told as well and not asked for. Default: none. */
  others?: readonly PlacedFact[];
}

/** A prompt: running text with facts inserted, then a question about one of them. */
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
  /** Tokens of the prompt before the fact. */
  position: number;
  /** Tokens of the fact, and of the question, which end the prompt. */
  sentenceLength: number;
  questionLength: number;
}

/** The sentence that states a fact, as the model was trained to read it: inserted where a sentence has ended. */
export function factSentence(fact: Fact): string {
  return ` The ${subject(fact)} is ${fact.number}.`;
}

/** The question that the model was trained to answer; it ends the prompt. */
export function factQuestion(fact: Fact): string {
  return `\n\nQuestion: What is the ${subject(fact)}?\nAnswer:`;
}

/** The same for a model that is talked to, whose form of a chat begins the answer. */
export function askedQuestion(fact: Fact): string {
  return `\n\nWhat is the ${subject(fact)}?`;
}

export function subject({adjective, noun}: Fact): string {
  return `secret number of the ${adjective} ${noun}`;
}

/**
 * Builds a prompt of exactly `length` tokens out of a text, the same for the same request.
 *
 * The passage starts at a paragraph, each fact goes to the sentence boundary nearest to its depth, and the text is cut
 * where the question has to begin, as a training sequence would be.
 *
 * @throws Failure if a fact cannot be used, or the text or the length is too short.
 */
export function buildNeedle(tokenizer: Tokenizer, book: string, request: NeedleRequest): Needle {
  const {length, depth, seed, others = []} = request;
  if (!Number.isInteger(length) || length < 1) {
    throw new Failure('PromptError', `length is ${length}; accepted: a positive integer, in tokens`);
  }
  const asked = {fact: request.fact ?? chooseFact(seed), depth};
  const facts = checkFacts([asked, ...others]);
  const sentences = facts.map(({fact}) => factSentence(fact));
  const question = (request.question ?? factQuestion)(asked.fact);
  const sentenceIds = sentences.map((sentence) => encodePlain(tokenizer, sentence));
  const questionIds = encodePlain(tokenizer, question);

  const taken = questionIds.length + sentenceIds.reduce((sum, ids) => sum + ids.length, 0);
  const passage = passageWithBoundaries(tokenizer, book, seed, length - taken);
  if (passage.boundaries.length === 0) {
    throw new Failure(
      'TextTooShortError',
      `length is ${length} tokens, of which facts and question take ${taken}: ` +
        'the rest holds no end of a sentence, where a fact could go; accepted: 128 and more, of prose',
    );
  }
  const {ids, position} = insert(passage, facts, sentenceIds);
  const end = position + sentenceIds[0].length;
  return {
    ids: [...ids, ...questionIds],
    fact: asked.fact,
    answer: asked.fact.number,
    sentence: sentences[0],
    question,
    before: decode(tokenizer, ids.slice(0, position)),
    after: decode(tokenizer, ids.slice(end)),
    position,
    sentenceLength: sentenceIds[0].length,
    questionLength: questionIds.length,
  };
}

/** Passages of few tokens that are tried: of some 80, as in a prompt of 128, one in 20 is part of one sentence. */
const TRIED_PASSAGES = 8;

/** The seed's passage, or where no sentence ends in it, one of other seeds. */
function passageWithBoundaries(tokenizer: Tokenizer, book: string, seed: number, length: number): Passage {
  let passage = takePassage(tokenizer, book, seed, length);
  for (let tried = 1; tried < TRIED_PASSAGES && passage.boundaries.length === 0; ++tried) {
    passage = takePassage(tokenizer, book, seed + 0x2f0b4a27 * tried, length);
  }
  return passage;
}

/** The passage with every fact in its place, and the place of the first one. */
function insert(
  {ids, boundaries}: Passage,
  facts: readonly PlacedFact[],
  sentences: readonly number[][],
): {ids: number[]; position: number} {
  const nearest = (wanted: number) =>
    boundaries.reduce((best, at) => (Math.abs(at - wanted) < Math.abs(best - wanted) ? at : best));
  const places = facts
    .map(({depth}, index) => ({index, at: nearest(depth * ids.length)}))
    .sort((a, b) => a.at - b.at || a.index - b.index);
  const parts: (readonly number[])[] = [];
  let position = 0;
  let written = 0;
  let from = 0;
  const add = (part: readonly number[]) => {
    parts.push(part);
    written += part.length;
  };
  for (const {index, at} of places) {
    add(ids.slice(from, at));
    if (index === 0) position = written;
    add(sentences[index]);
    from = at;
  }
  add(ids.slice(from));
  return {ids: parts.flat(), position};
}

function checkFacts(facts: readonly PlacedFact[]): readonly PlacedFact[] {
  const subjects = new Set<string>();
  for (const {fact, depth} of facts) {
    if (!(depth >= 0 && depth <= 1)) {
      throw new Failure('PromptError', `depth is ${depth}; accepted: 0 (beginning of the text) to 1 (end)`);
    }
    checkFact(fact);
    if (subjects.has(subject(fact))) {
      throw new Failure('PromptError', `two facts tell the ${subject(fact)}; accepted: one`);
    }
    subjects.add(subject(fact));
  }
  return facts;
}

function checkFact(fact: Fact): void {
  for (const field of ['adjective', 'noun'] as const) {
    if (!/^[a-z]{2,20}$/.test(fact[field])) {
      throw new Failure(
        'PromptError',
        `the ${field} is "${fact[field]}"; accepted: one word of 2 to 20 letters from a to z`,
      );
    }
  }
  if (!/^[1-9][0-9]{4}$/.test(fact.number)) {
    throw new Failure('PromptError', `the number is "${fact.number}"; accepted: five digits, the first not 0`);
  }
}
