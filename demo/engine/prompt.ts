import type {Tokenizer} from '@huggingface/tokenizers';
import {Failure} from '../../runner/failure';
import {askedQuestion, buildNeedle, type Needle, type NeedleRequest} from '../needle';
import {takePassage} from '../passage';
import {decode} from '../../runner/tokenizer';
import type {ChatFrame} from './chat_frame';
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
  /** Whether it is written in the model's form of a chat, so that a sentence comes back. */
  isChat?: boolean;
  /** The asked fact and the question among the tokens; only where there are. */
  fact?: TokenRange;
  question?: TokenRange;
}

/** Characters of text shown on either side of a fact. */
const EXCERPT = 400;

/**
 * @param frame of a model that is talked to: the text and the question are what the user says.
 * @throws Failure if the request makes no prompt.
 */
export function buildPrompt(tokenizer: Tokenizer, text: string, request: PromptRequest, frame?: ChatFrame): Prompt {
  if (request.task === 'continue') {
    return {ids: takePassage(tokenizer, text, request.seed, request.length).ids};
  }
  return promptOf(needleOf(tokenizer, text, request, request.asked, frame), frame);
}

export function promptOf({ids, answer, position, sentenceLength, questionLength}: Needle, frame?: ChatFrame): Prompt {
  const {before, after} = frame ?? {before: [], after: []};
  const factStart = before.length + position;
  const questionEnd = before.length + ids.length;
  return {
    ids: [...before, ...ids, ...after],
    answer,
    isChat: frame !== undefined,
    fact: {start: factStart, end: factStart + sentenceLength},
    question: {start: questionEnd - questionLength, end: questionEnd},
  };
}

/** What a person sees of the prompt. */
export function previewPrompt(tokenizer: Tokenizer, text: string, request: PromptRequest, frame?: ChatFrame): Preview {
  if (request.task === 'continue') {
    const {ids} = takePassage(tokenizer, text, request.seed, request.length);
    return {excerpts: [{before: decode(tokenizer, ids.slice(-EXCERPT)), sentence: '', after: ''}], question: ''};
  }
  const needles = request.facts.map((_, index) => needleOf(tokenizer, text, request, index, frame));
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
function needleOf(
  tokenizer: Tokenizer,
  text: string,
  request: PromptRequest,
  index: number,
  frame?: ChatFrame,
): Needle {
  const {length, seed, facts} = request;
  if (facts[index] === undefined) {
    throw new Failure('PromptError', `asked is ${index}; accepted: the index of one of ${facts.length} facts`);
  }
  const others = facts.filter((_, other) => other !== index);
  // The whole prompt has the length, with what the form of a chat puts around it.
  const framed = frame ? frame.before.length + frame.after.length : 0;
  const needle: NeedleRequest = {
    ...{length: length - framed, seed, ...facts[index], others},
    ...(frame && {question: askedQuestion}),
  };
  return buildNeedle(tokenizer, text, needle);
}
