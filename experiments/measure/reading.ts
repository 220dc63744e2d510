import * as tf from '@tensorflow/tfjs-core';
import {pbsAttentionDensity, type PBSAttentionPlan} from '../../src/index';
import {generate} from '../../runner/llama/generate';
import type {Prompt, Question} from '../prompts/tasks';
import {mean} from '../statistics';
import type {Subject} from './model';
import {tokenLosses} from './loss';
import type {Variant} from './variant';

/** What reading one prompt came to. */
export interface Reading {
  /** Mean next-token loss in nats over the prompt, the tokens of answers left out: they are what is asked. */
  loss: number;
  /** For each question, whether the greedy answer is the number and nothing else. */
  correct: boolean[];
  /** Share of visible blocks kept, mean over layers and heads; 1 for exact attention. */
  density: number;
}

/** A five-digit number takes at most six tokens with its space; more would be chatter. */
const MOST_ANSWER_TOKENS = 8;

/** Reads a prompt with every layer attending as the variant does, and answers its questions greedily. */
export async function readPrompt(subject: Subject, prompt: Prompt, variant: Variant): Promise<Reading> {
  const {model, tokenizer} = subject;
  const {ids, questions} = prompt;
  const plans: PBSAttentionPlan[] = [];
  let hidden: tf.Tensor2D | undefined;
  const request = {
    attend: (_layer: number, query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) =>
      variant.attend(query, key, value, (plan) => {
        tf.keep(plan.keyIndices);
        tf.keep(plan.blockMask);
        plans.push(plan);
      }),
    onHidden: (rows: tf.Tensor2D) => void (hidden = tf.keep(tf.clone(rows))),
  };
  try {
    let written: number[] = [];
    if (questions.some(({row}) => row === ids.length - 1)) {
      const text = (tokens: readonly number[]) => tokenizer.decode([...tokens]);
      const stop = (tokens: readonly number[]) => /\d\D|\n/.test(text(tokens));
      written = (await generate(model, ids, {...request, maxTokens: MOST_ANSWER_TOKENS, stop})).tokens;
    } else {
      const {logits, cache} = await model.prefill(ids, request);
      logits.dispose();
      cache.dispose();
    }
    const predicted = await mostLikely(subject, hidden!, questions, ids.length);
    const correct = questions.map(({fact, row}, i) => {
      const tokens = row === ids.length - 1 ? written : predicted[i];
      return isAnswer(tokens.length === 0 ? '' : tokenizer.decode(tokens), fact.number);
    });
    const losses = await tokenLosses(model, hidden!, ids);
    const isAsked = new Set(questions.flatMap(({row, answer}) => answer.map((_, i) => row + i)));
    const densities: number[] = [];
    for (const plan of plans) densities.push(await pbsAttentionDensity(plan));
    return {
      loss: mean(Array.from(losses).filter((_, row) => !isAsked.has(row))),
      correct,
      density: densities.length === 0 ? 1 : mean(densities),
    };
  } finally {
    hidden?.dispose();
    plans.forEach(({keyIndices, blockMask}) => tf.dispose([keyIndices, blockMask]));
  }
}

/** Whether a continuation is the number: digits alone, then something else or nothing. */
export function isAnswer(text: string, number: string): boolean {
  return /^ ?(\d+)/.exec(text)?.[1] === number;
}

/**
 * The most likely token after each row of an answer that stands in the prompt, and after its last token: the greedy
 * answer, as long as it is right so far.
 */
async function mostLikely(
  {model}: Subject,
  hidden: tf.Tensor2D,
  questions: readonly Question[],
  length: number,
): Promise<number[][]> {
  const rows = questions.map(({row, answer}) =>
    row === length - 1 ? [] : Array.from({length: answer.length + 1}, (_, i) => row + i),
  );
  if (rows.flat().length === 0) return rows;
  const best = tf.tidy(() => tf.argMax(model.logitsOf(tf.gather(hidden, tf.tensor1d(rows.flat(), 'int32'))), 1));
  const ids = [...(await best.data())];
  best.dispose();
  return rows.map((own) => ids.splice(0, own.length));
}
