import {expressionDanger} from './expression_cost';
import {cut, shown} from './message_text';

type Json = Record<string, unknown>;

const FILE = 'tokenizer.json';

/** The vocabularies in use have up to some 300,000 tokens. */
const MAX_ID = 2 ** 24;

/** Times that parts of a tokenizer may make a text longer; those in use write one or two characters for one. */
const MOST_GROWTH = 100;

/** What parts of a tokenizer write into a text, once or for each place that they find. */
const WRITTEN = ['content', 'replacement', 'str_rep', 'prepend', 'prefix', 'suffix', 'word_delimiter_token'];

/** No part of a tokenizer is nested deeper than a sequence of what tries others. */
const MOST_NESTED = 16;

/**
 * Checks what the library takes unseen and what would end the page rather than one text: ids that are none, expressions that take
 * exponential time, pieces of no length, texts that grow from part to part.
 *
 * @param json of `tokenizer.json`.
 * @throws Error that names the field, what came and what is accepted.
 */
export function checkTokenizerJson(json: Json): void {
  for (const [token, id] of vocabularyOf(json)) checkId(id, `model.vocab["${cut(token)}"]`);
  for (const [i, {id, content}] of addedTokensOf(json).entries()) {
    checkId(id, `added_tokens[${i}].id`);
    if (typeof content !== 'string') throw unaccepted(`added_tokens[${i}].content`, content, 'a text');
  }
  for (const part of ['normalizer', 'pre_tokenizer', 'decoder']) checkPart(json[part], part, 0);
  checkGrowth(['normalizer', 'pre_tokenizer'], json);
  checkGrowth(['decoder'], json);
}

/**
 * Holds the tokens against the vocabulary of the model: past it there are no logits and no embedding. Added tokens may lie there, as those do
 * that were only ever used for padding; one that is read is refused then.
 */
export function checkVocabulary(json: Json, vocabSize: number): void {
  const added = new Set(addedTokensOf(json).map(({content}) => content));
  for (const [token, id] of vocabularyOf(json)) {
    if (typeof id === 'number' && id >= vocabSize && !added.has(token)) {
      throw unaccepted(
        `model.vocab["${cut(token)}"]`,
        id,
        `ids up to ${vocabSize - 1}, as many as the model has tokens`,
      );
    }
  }
}

function vocabularyOf({model}: Json): [string, unknown][] {
  const vocab = (model as Json | null | undefined)?.vocab;
  return typeof vocab === 'object' && vocab !== null && !Array.isArray(vocab) ? Object.entries(vocab) : [];
}

function addedTokensOf({added_tokens: tokens}: Json): {id?: unknown; content?: unknown}[] {
  if (tokens === undefined || tokens === null) return [];
  if (!Array.isArray(tokens)) throw unaccepted('added_tokens', tokens, 'a list');
  return tokens.map((token: unknown) => token ?? {});
}

function checkId(id: unknown, field: string): void {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_ID) {
    throw unaccepted(field, id, `integers from 0 to ${MAX_ID}`);
  }
}

/** Of a part of the tokenizer and the parts that it holds. */
function checkPart(part: unknown, field: string, nesting: number): void {
  if (typeof part !== 'object' || part === null) return;
  if (nesting > MOST_NESTED) throw new Error(`${FILE}: ${cut(field)} is nested deeper than ${MOST_NESTED} times`);
  const {type, length} = part as Json;
  // Which the library would cut a text into for ever.
  if (type === 'FixedLength' && !(Number.isInteger(length) && (length as number) > 0)) {
    throw unaccepted(`${cut(field)}.length`, length, 'a positive integer');
  }
  for (const [name, value] of Object.entries(part)) {
    if (name === 'Regex' && typeof value === 'string') {
      const danger = expressionDanger(value);
      if (danger) throw new Error(`${FILE}: ${cut(field)}: the expression ${shown(value)} ${danger}`);
    } else {
      checkPart(value, `${field}.${name}`, nesting + 1);
    }
  }
}

/** What a part writes into a text, at most once for each `found`; without one perhaps for each character. */
interface Writing {
  found?: string;
  written: string;
}

/** Of parts that a text passes one after the other. */
function checkGrowth(parts: readonly string[], json: Json): void {
  const writings = parts.flatMap((part) => writingsOf(json[part]));
  // What one part writes, a later one may find; the others write in different places. From the last to the first:
  let [multiplied, most] = [1, 1];
  const foundLater = new Set<string>();
  let findsAll = false;
  for (const {found, written} of writings.reverse()) {
    const factor = Math.max(1, written.length / (found?.length ?? 1));
    if (findsAll || Array.from(written).some((x) => foundLater.has(x))) multiplied *= factor;
    else most = Math.max(most, factor);
    for (const x of found ?? '') foundLater.add(x);
    findsAll ||= found === undefined;
  }
  const growth = multiplied * most;
  if (growth > MOST_GROWTH) {
    const got = growth < 1e6 ? Math.ceil(growth) : growth.toExponential(0);
    throw new Error(
      `${FILE}: ${parts.join(' and ')} may make a text ${got} times as long; accepted: up to ${MOST_GROWTH} times`,
    );
  }
}

/** Those of a part and the parts that it holds, in order. */
function writingsOf(part: unknown): Writing[] {
  if (typeof part !== 'object' || part === null) return [];
  const {type, pattern} = part as Json;
  const literal = type === 'Metaspace' ? ' ' : (pattern as Json | null | undefined)?.String;
  const found = typeof literal === 'string' && literal !== '' ? literal : undefined;
  const own = WRITTEN.map((name) => (part as Json)[name]).filter((text) => typeof text === 'string');
  return [...own.map((written) => ({found, written})), ...Object.values(part).flatMap(writingsOf)];
}

function unaccepted(field: string, got: unknown, accepted: string): Error {
  return new Error(`${FILE}: ${field} is ${shown(got)}; accepted: ${accepted}`);
}
