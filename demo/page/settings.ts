import {BACKEND_NAMES, type BackendName} from '../backend_names';
import {MOST_WRITTEN_TOKENS, type Machine, type PromptRequest, type RunRequest, type Task} from '../engine/protocol';
import type {Sampling} from '../../runner/llama/sample';
import {chooseFact, type PlacedFact} from '../fact';
import {BOOK_NAMES, type BookName} from './books';

/** Everything about a run that its address can share. */
export interface Settings extends Sampling {
  backend: BackendName | 'auto';
  book: BookName;
  task: Task;
  /** Tokens of the prompt; absent: what suits the machine. */
  length?: number;
  /** Chooses the passage of the text. */
  pages: number;
  /** At least one. */
  facts: PlacedFact[];
  /** Index of the fact that is asked for. */
  asked: number;
  threshold: number;
  estimate: 'sampled' | 'pooled';
  /** Tokens a block of queries, and a block of keys. */
  blockSize: number;
  keyBlockSize: number;
  /** Whole blocks of keys. */
  segmentSize: number;
  permute: boolean;
  precision: 'float32' | 'float16';
  /** Most tokens to write; absent: what suits the task. */
  maxTokens?: number;
}

export const LENGTHS = [512, 1024, 2048, 4096, 8192, 16_384];
export const BLOCK_SIZES = [32, 64, 128];
export const SEGMENT_SIZES = [32, 64, 128, 256, 512, 1024, 2048];
export const MAX_FACTS = 8;
export const MAX_SEED = 2 ** 31 - 1;

/** Settings of a page without any in its address. */
export function defaultSettings(): Settings {
  return {
    backend: 'auto',
    book: 'dubliners',
    task: 'find',
    pages: 1,
    facts: defaultFacts(1),
    asked: 0,
    threshold: 0.9,
    estimate: 'sampled',
    blockSize: 128,
    keyBlockSize: 64,
    segmentSize: 256,
    permute: true,
    precision: 'float32',
    temperature: 0,
    topP: 1,
    seed: 1,
  };
}

/** One fact in the middle, another for other pages. */
export function defaultFacts(pages: number): PlacedFact[] {
  return [{fact: chooseFact(pages), depth: 0.5}];
}

/** A context that is answered within seconds to minutes on each kind of hardware. */
export function defaultLength({software}: Machine): number {
  return software ? 512 : 4096;
}

/** A five-digit number takes at most six tokens with its space; a continuation is to be read. */
export function defaultMaxTokens(task: Task): number {
  return task === 'find' ? 8 : 64;
}

/** Lengths that a model can read: its own longest where that is below all of ours. */
export function offeredLengths(maxLength: number): number[] {
  const lengths = LENGTHS.filter((length) => length <= maxLength);
  return lengths.length > 0 ? lengths : [maxLength];
}

/** The offered length that comes nearest to the wanted one without exceeding it. */
export function fitLength(wanted: number, maxLength: number): number {
  const offered = offeredLengths(maxLength);
  return offered.filter((length) => length <= wanted).at(-1) ?? offered[0];
}

/** The next shorter of our lengths. */
export function shorterLength(length: number): number | undefined {
  return LENGTHS.filter((shorter) => shorter < length).at(-1);
}

export function segmentSizesFor(keyBlockSize: number): number[] {
  return SEGMENT_SIZES.filter((size) => size % keyBlockSize === 0);
}

export function promptRequest({task, pages, facts, asked}: Settings, length: number): PromptRequest {
  return {task, length, seed: pages, facts, asked};
}

export function runRequest(settings: Settings, length: number, machine: Machine): RunRequest {
  const {threshold, estimate, blockSize, keyBlockSize, segmentSize, permute} = settings;
  const {temperature, topP, seed} = settings;
  const precision = machine.float16 === 'none' ? 'float32' : settings.precision;
  return {
    prompt: promptRequest(settings, length),
    options: {threshold, estimate, blockSize, keyBlockSize, segmentSize, permute, precision},
    maxTokens: settings.maxTokens ?? defaultMaxTokens(settings.task),
    sampling: {temperature, topP, seed},
  };
}

/** How one setting is written in the address. `read` gives nothing for what is not accepted. */
interface Field<T> {
  name: string;
  accepted: string;
  read(text: string): T | undefined;
  write(value: T): string;
}

function choice<T extends string | number>(name: string, values: readonly T[]): Field<T> {
  return {
    name,
    accepted: values.join(', '),
    read: (text) => values.find((value) => String(value) === text),
    write: String,
  };
}

function whole(name: string, min: number, max: number): Field<number> {
  return {
    name,
    accepted: `a whole number from ${min} to ${max}`,
    read: (text) => (/^\d{1,10}$/.test(text) ? inRange(Number(text), min, max) : undefined),
    write: String,
  };
}

/** Hundredths: what the sliders can show. */
function decimal(name: string, min: number, max: number): Field<number> {
  return {
    name,
    accepted: `a number from ${min} to ${max} with at most two decimals`,
    read: (text) => (/^\d+(\.\d{1,2})?$/.test(text) ? inRange(Number(text), min, max) : undefined),
    write: String,
  };
}

function inRange(value: number, min: number, max: number): number | undefined {
  return value >= min && value <= max ? value : undefined;
}

function yesOrNo(name: string): Field<boolean> {
  return {
    name,
    accepted: 'yes, no',
    read: (text) => (text === 'yes' ? true : text === 'no' ? false : undefined),
    write: (value) => (value ? 'yes' : 'no'),
  };
}

const depth = decimal('depth', 0, 1);

const fact: Field<PlacedFact> = {
  name: 'fact',
  accepted: 'adjective-noun-number-depth, such as hidden-falcon-57470-0.5',
  read: (text) => {
    const [, adjective, noun, number, at] = /^([a-z]{2,20})-([a-z]{2,20})-([1-9]\d{4})-([\d.]+)$/.exec(text) ?? [];
    const place = at === undefined ? undefined : depth.read(at);
    return place === undefined ? undefined : {fact: {adjective, noun, number}, depth: place};
  },
  write: ({fact: {adjective, noun, number}, depth: at}) => `${adjective}-${noun}-${number}-${at}`,
};

type Single = Exclude<keyof Settings, 'facts' | 'asked'>;
type Value<K extends Single> = NonNullable<Settings[K]>;

const fields: {[K in Single]: Field<Value<K>>} = {
  backend: choice('backend', ['auto', ...BACKEND_NAMES]),
  book: choice('book', BOOK_NAMES),
  task: choice('task', ['find', 'continue']),
  length: choice('length', LENGTHS),
  pages: whole('pages', 0, MAX_SEED),
  threshold: decimal('tau', 0, 1),
  estimate: choice('estimate', ['sampled', 'pooled']),
  blockSize: choice('block', BLOCK_SIZES),
  keyBlockSize: choice('key-block', BLOCK_SIZES),
  segmentSize: choice('segment', SEGMENT_SIZES),
  permute: yesOrNo('permute'),
  precision: choice('precision', ['float32', 'float16']),
  maxTokens: whole('tokens', 1, MOST_WRITTEN_TOKENS),
  temperature: decimal('temperature', 0, 2),
  topP: decimal('top-p', 0.01, 1),
  seed: whole('seed', 0, MAX_SEED),
};

const singles = Object.keys(fields) as Single[];

/** The query of an address, without what is as by default. */
export function writeSettings(settings: Settings): URLSearchParams {
  const query = new URLSearchParams();
  const defaults = {...defaultSettings(), facts: defaultFacts(settings.pages)};
  const write = <K extends Single>(key: K) => {
    const value = settings[key];
    if (value !== undefined && value !== defaults[key]) {
      query.set(fields[key].name, fields[key].write(value as Value<K>));
    }
  };
  singles.forEach(write);
  const facts = settings.facts.map(fact.write);
  if (facts.join() !== defaults.facts.map(fact.write).join()) facts.forEach((text) => query.append(fact.name, text));
  if (settings.asked !== 0) query.set('ask', String(settings.asked + 1));
  return query;
}

/** Whether an address says something of the fact view: the backend is of all views. */
export function hasFactSettings(query: URLSearchParams): boolean {
  const names = [...singles.map((key) => fields[key].name), fact.name, 'ask'];
  return names.some((name) => name !== fields.backend.name && query.has(name));
}

/** Settings of an address. What is not accepted leaves the default, and is said in `ignored`, a phrase each. */
export function readSettings(query: URLSearchParams): {settings: Settings; ignored: string[]} {
  const settings = defaultSettings();
  const ignored: string[] = [];
  const readOne = <T>(field: Field<T>, text: string | null): T | undefined => {
    const value = text === null ? undefined : field.read(text);
    if (text !== null && value === undefined) {
      ignored.push(`${field.name} is "${text}"; accepted: ${field.accepted}`);
    }
    return value;
  };
  const readSingle = <K extends Single>(key: K) => {
    const value = readOne<Value<K>>(fields[key], query.get(fields[key].name));
    if (value !== undefined) settings[key] = value;
  };
  singles.forEach(readSingle);

  const {segmentSize, keyBlockSize} = settings;
  if (segmentSize % keyBlockSize !== 0) {
    ignored.push(`segment is "${segmentSize}"; accepted: a multiple of the size ${keyBlockSize} of key blocks`);
    settings.segmentSize = defaultSettings().segmentSize;
  }
  const facts: PlacedFact[] = [];
  for (const text of query.getAll(fact.name)) {
    const placed = readOne(fact, text);
    if (placed === undefined) continue;
    if (facts.some((other) => haveSameSubject(other, placed))) {
      ignored.push(`fact is "${text}"; accepted: one number for each adjective and noun`);
    } else if (facts.length === MAX_FACTS) {
      ignored.push(`fact is "${text}"; accepted: at most ${MAX_FACTS} facts`);
    } else {
      facts.push(placed);
    }
  }
  settings.facts = facts.length > 0 ? facts : defaultFacts(settings.pages);
  settings.asked = (readOne(whole('ask', 1, settings.facts.length), query.get('ask')) ?? 1) - 1;
  return {settings, ignored};
}

/** A question about one could be answered by the other. */
export function haveSameSubject(a: PlacedFact, b: PlacedFact): boolean {
  return a.fact.adjective === b.fact.adjective && a.fact.noun === b.fact.noun;
}
