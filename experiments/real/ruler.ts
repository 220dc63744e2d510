import type {Tokenizer} from '@huggingface/tokenizers';
import {chooseFact} from '../../demo/fact';
import {randomNumbers} from '../../runner/random_numbers';
import {encode} from '../../runner/tokenizer';
import {type Book, passage} from '../prompts/book';

/**
 * Tasks after RULER (arXiv 2404.06654), in its words; a book is the haystack:
 * - `needles`: 16 keys with a number each, one is asked for (multi-key needles);
 * - `several`: the same, four are asked for at once (multi-query needles);
 * - `variables`: three chains of four variables that are assigned to each other; all variables of one are asked for
 *   (variable tracking).
 */
export const RULER_TASKS = ['needles', 'several', 'variables'] as const;
export type RulerTask = (typeof RULER_TASKS)[number];

/** Where a question ends: so many tokens before the end of the prompt, or there, with its answer after it. */
export const PLACEMENTS = ['1000', '200', 'end'] as const;
export type Placement = (typeof PLACEMENTS)[number];

/** One thing that a question asks for. */
export interface Item {
  placement: Placement;
  answer: number[];
  /** Index of the token after which the answer begins. */
  row: number;
}

/**
 * A text and three questions about it, in three turns of a chat where the tokenizer knows them, otherwise as plain text. Each
 * question is followed by the beginning of its answer, as in RULER, and by the answer: what is asked is whether the most
 * likely token at each place of it is the right one, which is the greedy answer as long as it is right. So all three are
 * answered by one prefill.
 */
export interface RulerPrompt {
  ids: number[];
  items: Item[];
}

const NEEDLES = 16;
const ASKED_AT_ONCE = 4;
const CHAINS = PLACEMENTS.length;
const CHAIN_LENGTH = 4;

interface Task {
  intro: string;
  /** Sentences for the haystack, in their order. */
  statements: string[];
  questions: Question[];
}

interface Question {
  question: string;
  /** The beginning of the answer. */
  prefix: string;
  /** What is asked for, each with what stands before it. */
  answers: Array<{before: string; text: string}>;
}

/** How turns are written. */
interface Form {
  start: string;
  ask: (question: string, prefix: string) => string;
  next: string;
}

const CHAT: Form = {
  start: '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n',
  ask: (question, prefix) => `\n\n${question}<|im_end|>\n<|im_start|>assistant\n${prefix}`,
  next: '.<|im_end|>\n<|im_start|>user\n',
};

const PLAIN: Form = {
  start: '',
  ask: (question, prefix) => `\n\nQuestion: ${question}\nAnswer: ${prefix}`,
  next: '.\n\n',
};

/** Builds a prompt of exactly `length` tokens, the same for the same arguments. */
export function rulerPrompt(
  tokenizer: Tokenizer,
  book: Book,
  task: RulerTask,
  length: number,
  seed: number,
): RulerPrompt {
  const random = randomNumbers(seed);
  const {intro, statements, questions} = task === 'variables' ? variables(random) : needles(random, task, seed);
  const form = encode(tokenizer, '<|im_start|>').length === 1 ? CHAT : PLAIN;
  const head = encode(tokenizer, form.start + intro);
  const told = statements.map((statement) => encode(tokenizer, statement));
  const turns = questions.map((question) => encodeTurn(tokenizer, form, question));
  const next = encode(tokenizer, form.next);

  // From the end: what follows each question is text of its own and the questions after it.
  let tail: number[] = [];
  const items: Array<Item & {fromEnd: number}> = [];
  for (let i = PLACEMENTS.length - 1; i >= 0; --i) {
    const placement = PLACEMENTS[i];
    const {asked, answered, places} = turns[i];
    if (placement !== 'end') {
      const room = Math.max(0, Number(placement) - answered.length - next.length - tail.length);
      tail = [...next, ...passage(book, random(), room).ids, ...tail];
    }
    tail = [...asked, ...answered, ...tail];
    const fromEnd = tail.length - asked.length;
    items.push(...places.map(({at, answer}) => ({placement, answer, row: 0, fromEnd: fromEnd - at})));
  }
  const taken = head.length + tail.length + told.reduce((sum, {length}) => sum + length, 0);
  if (length - taken < 256) throw new Error(`length is ${length}; the task ${task} takes ${taken}, and 256 of text`);
  const text = passage(book, random(), length - taken);
  const ids = [...head, ...insert(text.ids, chooseSorted(text.boundaries, told.length, random), told), ...tail];
  return {ids, items: items.map(({fromEnd, ...item}) => ({...item, row: ids.length - fromEnd - 1}))};
}

function needles(random: () => number, task: RulerTask, seed: number): Task {
  const facts = new Map<string, string>();
  for (let i = 0; facts.size < NEEDLES; ++i) {
    const {adjective, noun} = chooseFact(seed + 7919 * i);
    facts.set(`${adjective}-${noun}`, String(1_000_000 + Math.floor(random() * 9_000_000)));
  }
  const keys = shuffled([...facts.keys()], random);
  const perQuestion = task === 'several' ? ASKED_AT_ONCE : 1;
  const questions = PLACEMENTS.map((_, i): Question => {
    const asked = keys.slice(i * perQuestion, (i + 1) * perQuestion);
    const names = listed(asked);
    const [magic, are] = asked.length > 1 ? ['special magic numbers', 'are'] : ['special magic number', 'is'];
    return {
      question: `What ${are} the ${magic} for ${names} mentioned in the provided text?`,
      prefix: `The ${magic} for ${names} mentioned in the provided text ${are}`,
      answers: asked.map((key, j) => {
        const separator = j === 0 ? '' : j < asked.length - 1 ? ',' : ', and';
        return {before: separator, text: ` ${facts.get(key)}`};
      }),
    };
  });
  return {
    intro:
      'Some special magic numbers are hidden within the following text. Make sure to memorize them. I will quiz you ' +
      'about the numbers afterwards.\n',
    statements: shuffled([...facts], random).map(
      ([key, number]) => ` One of the special magic numbers for ${key} is: ${number}.`,
    ),
    questions,
  };
}

function variables(random: () => number): Task {
  const name = () => Array.from({length: 5}, () => String.fromCharCode(65 + Math.floor(random() * 26))).join('');
  const chains = Array.from({length: CHAINS}, () => ({
    value: String(10_000 + Math.floor(random() * 90_000)),
    names: Array.from({length: CHAIN_LENGTH}, name),
  }));
  // Each chain in its order, the chains among each other.
  const order = shuffled(
    chains.flatMap((_, chain) => Array.from({length: CHAIN_LENGTH}, () => chain)),
    random,
  );
  const told = chains.map(() => 0);
  return {
    intro: 'Memorize and track the chain(s) of variable assignment hidden in the following text.\n',
    statements: order.map((chain) => {
      const {value, names} = chains[chain];
      const i = told[chain]++;
      return ` VAR ${names[i]} = ${i === 0 ? value : `VAR ${names[i - 1]}`}.`;
    }),
    questions: chains.map(({value, names}) => ({
      question: `Find all variables that are assigned the value ${value} in the text above.`,
      prefix:
        `According to the chain(s) of variable assignment in the text above, ${CHAIN_LENGTH} variables are assigned the ` +
        `value ${value}, they are:`,
      answers: names.map((text) => ({before: '', text: ` ${text}`})),
    })),
  };
}

interface Turn {
  asked: number[];
  answered: number[];
  /** Where in `answered` an answer begins. */
  places: Array<{at: number; answer: number[]}>;
}

function encodeTurn(tokenizer: Tokenizer, form: Form, {question, prefix, answers}: Question): Turn {
  const answered: number[] = [];
  const places: Turn['places'] = [];
  for (const {before, text} of answers) {
    if (before !== '') answered.push(...encode(tokenizer, before));
    const ids = encode(tokenizer, text);
    // A space that is a token of its own is no part of the answer.
    const blanks = ids.findIndex((id) => tokenizer.decode([id]).trim() !== '');
    places.push({at: answered.length + blanks, answer: ids.slice(blanks)});
    answered.push(...ids);
  }
  return {asked: encode(tokenizer, form.ask(question, prefix)), answered, places};
}

/** Ascending places, none twice. */
function chooseSorted(places: readonly number[], count: number, random: () => number): number[] {
  if (places.length < count) throw new Error(`the passage has ${places.length} ends of sentences; needed: ${count}`);
  return shuffled([...places], random)
    .slice(0, count)
    .sort((a, b) => a - b);
}

function insert(ids: readonly number[], places: readonly number[], told: readonly number[][]): number[] {
  const result: number[] = [];
  let start = 0;
  for (const [i, place] of places.entries()) {
    result.push(...ids.slice(start, place), ...told[i]);
    start = place;
  }
  return [...result, ...ids.slice(start)];
}

function shuffled<T>(values: T[], random: () => number): T[] {
  for (let i = values.length - 1; i > 0; --i) {
    const j = Math.floor(random() * (i + 1));
    [values[i], values[j]] = [values[j], values[i]];
  }
  return values;
}

const listed = (names: readonly string[]) =>
  names.length === 1 ? names[0] : `${names.slice(0, -1).join(', ')}, and ${names.at(-1)}`;
