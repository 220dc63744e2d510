import type {Tokenizer} from '@huggingface/tokenizers';
import {chooseFact, type Fact} from '../../demo/fact';
import {factQuestion, factSentence, subject} from '../../demo/needle';
import {randomNumbers} from '../../runner/random_numbers';
import {encode} from '../../runner/tokenizer';
import {type Book, passage} from './book';

/**
 * Tasks that differ in where facts and questions stand:
 * - `end`: one question, which ends the prompt;
 * - `text-50`, `text-200`, `text-1000`: the question and its answer are followed by so many tokens of other text;
 * - `several`: four facts, four questions one after another at the end;
 * - `border`: the number lies across the border of two blocks, the question ends the prompt;
 * - `short`, `long`: the question in 10 or in about 80 tokens; it ends the prompt.
 */
export const TASKS = ['end', 'text-50', 'text-200', 'text-1000', 'several', 'border', 'short', 'long'] as const;
export type Task = (typeof TASKS)[number];

export interface Question {
  fact: Fact;
  /** Tokens of the answer: a space and the number. */
  answer: number[];
  /** Index of the prompt's token after which the answer begins; the last one if the question ends the prompt. */
  row: number;
}

export interface Prompt {
  task: Task;
  book: string;
  /** Where the fact was asked to go: 0 is the beginning of the text, 1 its end. */
  depth: number;
  seed: number;
  ids: number[];
  /** Answers that stand in the prompt are read by it (teacher forcing); only the last question may end it. */
  questions: Question[];
}

export interface PromptRequest {
  task: Task;
  /** Tokens of the whole prompt. */
  length: number;
  /** 0 to 1. */
  depth: number;
  /** Chooses passage and facts. */
  seed: number;
}

/** Borders that matter to `border` are multiples of this: the largest block that is measured. */
const BORDER = 128;

const SEVERAL = 4;

/** Questions that a prompt of the task asks. */
export function questionsOf(task: Task): number {
  return task === 'several' ? SEVERAL : 1;
}

/** Builds a prompt of exactly `length` tokens, the same for the same request. */
export function buildPrompt(tokenizer: Tokenizer, book: Book, request: PromptRequest): Prompt {
  const {task, length, depth, seed} = request;
  // The facts take their own numbers from the seed; the passage must not hang together with them.
  const random = randomNumbers(seed + 0x2545f491);
  const facts = chooseFacts(seed, questionsOf(task));
  const sentences = facts.map((fact) => encode(tokenizer, factSentence(fact)));
  const answers = facts.map(({number}) => encode(tokenizer, ` ${number}`));
  const asked = facts.map((fact, i) => {
    const question = encode(tokenizer, questionText(task, fact));
    const isLast = i === facts.length - 1;
    return isLast && !task.startsWith('text-') ? question : [...question, ...answers[i]];
  });
  const follows = task.startsWith('text-') ? Number(task.slice('text-'.length)) : 0;
  const taken = [...sentences, ...asked].reduce((sum, {length}) => sum + length, 0);
  const textLength = length - taken - follows;
  if (textLength < BORDER) {
    throw new Error(`length is ${length}; the task ${task} takes ${taken + follows}, and ${BORDER} of text`);
  }

  const slack = task === 'border' ? BORDER : 0;
  const text = passage(book, random(), textLength + slack);
  // Less than a block is cut off before the first fact.
  const boundaries = text.boundaries.filter((at) => at >= slack);
  const depths = facts.map((_, i) => (i === 0 ? depth : 0.05 + 0.9 * random()));
  const places = chooseBoundaries(boundaries, depths, textLength);
  let dropped = 0;
  if (task === 'border') {
    const number = sentences[0].length - 1 - answers[0].length;
    // The first token of the number, with its space, ends a block.
    dropped = (places[0] + number + 1) % BORDER;
  }
  const context = insert(text.ids, places, sentences).slice(dropped, textLength + dropped + sentences.flat().length);

  const ids = context;
  const questions: Question[] = [];
  asked.forEach((tokens, i) => {
    const read = isAnswered(tokens, answers[i]) ? answers[i].length : 0;
    questions.push({fact: facts[i], answer: answers[i], row: ids.length + tokens.length - read - 1});
    ids.push(...tokens);
  });
  if (follows > 0) ids.push(...followingText(tokenizer, book, random(), follows));
  return {task, book: book.name, depth, seed, ids, questions};
}

/** Facts about different things. */
function chooseFacts(seed: number, count: number): Fact[] {
  const facts: Fact[] = [];
  for (let i = 0; facts.length < count; ++i) {
    const fact = chooseFact(seed + 7919 * i);
    if (facts.every((other) => subject(other) !== subject(fact))) facts.push(fact);
  }
  return facts;
}

function questionText(task: Task, fact: Fact): string {
  switch (task) {
    case 'short':
      return `\n\nQuestion: The ${subject(fact)}?\nAnswer:`;
    case 'long':
      return factQuestion(fact).replace(
        'Question: ',
        'Question: Somewhere in the text above, between one sentence of the story and the next, there stands a ' +
          'sentence that has nothing to do with it. It says that a thing has a secret number, and what that number is. ' +
          'Think of everything that you have read, from the beginning to the end, before you answer. ',
      );
    default:
      return factQuestion(fact);
  }
}

/** The boundary nearest to each depth, none taken twice. */
function chooseBoundaries(boundaries: readonly number[], depths: readonly number[], textLength: number): number[] {
  if (boundaries.length < depths.length) {
    throw new Error(`the passage has ${boundaries.length} ends of sentences; needed: ${depths.length}`);
  }
  const free = new Set(boundaries.filter((at) => at <= textLength));
  return depths.map((depth) => {
    const wanted = depth * textLength;
    const place = [...free].reduce((best, at) => (Math.abs(at - wanted) < Math.abs(best - wanted) ? at : best));
    free.delete(place);
    return place;
  });
}

function insert(ids: readonly number[], places: readonly number[], sentences: readonly number[][]): number[] {
  const order = places.map((_, i) => i).sort((a, b) => places[a] - places[b]);
  const result: number[] = [];
  let start = 0;
  for (const i of order) {
    result.push(...ids.slice(start, places[i]), ...sentences[i]);
    start = places[i];
  }
  return [...result, ...ids.slice(start)];
}

function isAnswered(asked: readonly number[], answer: readonly number[]): boolean {
  return answer.every((id, i) => asked[asked.length - answer.length + i] === id);
}

/** Text that goes on after an answer: a new paragraph from elsewhere in the book. */
function followingText(tokenizer: Tokenizer, book: Book, choice: number, length: number): number[] {
  // One by one, as the tokenizer reads them in front of a word.
  const gap = [...encode(tokenizer, '\n'), ...encode(tokenizer, '\n')];
  return [...gap, ...passage(book, choice, length - gap.length).ids];
}
