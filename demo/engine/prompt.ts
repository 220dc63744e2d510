import type {Tokenizer} from '@huggingface/tokenizers';
import {Failure} from '../../runner/failure';
import {buildNeedle, type Needle, type NeedleRequest} from '../needle';
import {takePassage} from '../passage';
import {decode} from '../../runner/tokenizer';
import type {Preview, PromptRequest} from './protocol';

/** Tokens from `start` to before `end` of a prompt. */
export interface TokenRange {
  start: number;
  end: number;
}

export interface Prompt {
  ids: number[];
  /** What answers the question; only where there is one. */
  answer?: string;
  /** The asked fact and the question among the tokens; only where there are. */
  fact?: TokenRange;
  question?: TokenRange;
}

/** Characters of text shown on either side of a fact. */
const EXCERPT = 400;

/** @throws Failure if the request makes no prompt. */
export function buildPrompt(tokenizer: Tokenizer, text: string, request: PromptRequest): Prompt {
  if (request.task === 'continue') {
    return {ids: takePassage(tokenizer, text, request.seed, request.length).ids};
  }
  return promptOf(needleOf(tokenizer, text, request, request.asked));
}

export function promptOf({ids, answer, position, sentenceLength, questionLength}: Needle): Prompt {
  return {
    ids,
    answer,
    fact: {start: position, end: position + sentenceLength},
    question: {start: ids.length - questionLength, end: ids.length},
  };
}

/** What a person sees of the prompt. */
export function previewPrompt(tokenizer: Tokenizer, text: string, request: PromptRequest): Preview {
  if (request.task === 'continue') {
    const {ids} = takePassage(tokenizer, text, request.seed, request.length);
    return {excerpts: [{before: decode(tokenizer, ids.slice(-EXCERPT)), sentence: '', after: ''}], question: ''};
  }
  const needles = request.facts.map((_, index) => needleOf(tokenizer, text, request, index));
  return {
    excerpts: needles.map(({before, sentence, after}) => ({
      before: before.slice(-EXCERPT).replace(/^\S*\s/, ''),
      sentence,
      after: after.slice(0, EXCERPT).replace(/\s\S*$/, ''),
    })),
    question: needles[request.asked].question,
  };
}

/** The prompt's needle as it would be if the fact with this index were asked for. */
function needleOf(tokenizer: Tokenizer, text: string, request: PromptRequest, index: number): Needle {
  const {length, seed, facts} = request;
  if (facts[index] === undefined) {
    throw new Failure('PromptError', `asked is ${index}; accepted: the index of one of ${facts.length} facts`);
  }
  const others = facts.filter((_, other) => other !== index);
  const needle: NeedleRequest = {length, seed, ...facts[index], others};
  return buildNeedle(tokenizer, text, needle);
}
