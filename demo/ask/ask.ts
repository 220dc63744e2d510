import * as tf from '@tensorflow/tfjs-core';
import {pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import type {PrefillAttention, PrefillOptions} from '../llama/attention';
import {generate} from '../llama/generate';
import type {Needle} from '../needle';
import type {Session} from './session';

/** One way of attending, measured. */
export interface Run {
  /** The number that the model wrote, or its words where it wrote none. */
  answer: string;
  correct: boolean;
  /** From the prefill's call until the first answer token's id was read back, in milliseconds. */
  firstTokenMs: number;
}

export interface AskResult {
  backend: string;
  adapter: string;
  /** Tokens in the prompt. */
  length: number;
  exact: Run;
  /** `density`: share of the causally visible blocks that were kept, mean over layers and heads. */
  pbs: Run & {density: number};
}

export interface AskEvents {
  /** What happens now, in words, and how much of the whole is done (0 to 1). */
  onStep?: (step: string, done: number) => void;
  onExact?: (run: Run) => void;
}

/** A five-digit number takes at most six tokens with its space; more would be chatter. */
export const MAX_ANSWER_TOKENS = 8;

/** A token past the default segment: PBS attention takes its sparse path, and every shader is compiled. */
const SHORT_WARM_UP = 257;

/**
 * Asks the needle's question with exact attention and with PBS attention, under equal conditions: each is
 * warmed up, then timed, and nothing but the answer is computed while the clock runs.
 *
 * @throws Error if a run fails or the device reported an error meanwhile.
 */
export async function ask(
  session: Session,
  needle: Needle,
  options: PrefillOptions,
  events: AskEvents = {},
): Promise<AskResult> {
  const {backend} = session;
  const {layers} = session.model.config;
  const warmUpIds = needle.ids.slice(needle.ids.length - warmUpLength(session, needle.ids.length));
  const work = 2 * (warmUpIds.length + needle.ids.length);
  let finished = 0;

  const step = async <T>(words: string, tokens: number, run: (onLayer?: OnLayer) => Promise<T>): Promise<T> => {
    const report = (share: number) => events.onStep?.(words, (finished + share * tokens) / work);
    report(0);
    // A GPU takes the layers of a prefill as fast as they are queued, so only here does a finished layer say
    // how far the work is; and only here does the work keep the page from drawing.
    const result = await run(
      backend.name !== 'cpu'
        ? undefined
        : async (layer) => {
            report((layer + 1) / layers);
            await letPageDraw();
          },
    );
    backend.throwIfFailed();
    finished += tokens;
    return result;
  };
  const warmUp = async (words: string, attention: PrefillAttention) => {
    if (warmUpIds.length === 0) return;
    await step(words, warmUpIds.length, (onLayer) =>
      generate(session.model, warmUpIds, {attention, options, maxTokens: 2, onLayer}),
    );
  };

  await warmUp('Exact attention: warming up', 'flash');
  const exact = await step('Exact attention: reading', needle.ids.length, (onLayer) =>
    answer(session, needle, {attention: 'flash', onLayer}),
  );
  events.onExact?.(exact);

  await warmUp('PBS attention: warming up', 'pbs');
  const pbs = await step('PBS attention: reading', needle.ids.length, (onLayer) =>
    answerWithDensity(session, needle, options, onLayer),
  );
  events.onStep?.('Done', 1);
  return {backend: backend.name, adapter: backend.adapter, length: needle.ids.length, exact, pbs};
}

type OnLayer = (layer: number) => Promise<void>;
type AnswerRequest = Omit<Parameters<typeof generate>[2], 'maxTokens' | 'stop'>;

/**
 * Tokens of the warm-up. On graphics hardware the whole prompt, because tfjs picks shaders and buffers by shape;
 * elsewhere just enough to compile the shaders, of which plain JavaScript has none: a prompt takes a minute there.
 */
function warmUpLength({backend}: Session, length: number): number {
  if (backend.name === 'cpu') return 0;
  return backend.software ? Math.min(length, SHORT_WARM_UP) : length;
}

async function answer({model, tokenizer}: Session, needle: Needle, request: AnswerRequest): Promise<Run> {
  const text = (tokens: readonly number[]) => tokenizer.decode([...tokens]);
  const {tokens, firstTokenMs} = await generate(model, needle.ids, {
    ...request,
    maxTokens: MAX_ANSWER_TOKENS,
    stop: (soFar) => /\d\D|\n/.test(text(soFar)),
  });
  const written = text(tokens).trim();
  const answer = /^\d+/.exec(written)?.[0] ?? written;
  return {answer, correct: answer === needle.answer, firstTokenMs};
}

/**
 * Holds each layer's queries and keys while the clock runs, which costs no work, and plans over them again
 * afterwards: pbsAttention itself never gives its block mask away.
 */
async function answerWithDensity(
  session: Session,
  needle: Needle,
  options: PrefillOptions,
  onLayer?: OnLayer,
): Promise<Run & {density: number}> {
  const held: Array<{query: tf.Tensor4D; key: tf.Tensor4D}> = [];
  try {
    const run = await answer(session, needle, {
      attention: 'pbs',
      options,
      onLayer,
      onAttention: (_, query, key) => held.push({query: tf.keep(tf.clone(query)), key: tf.keep(tf.clone(key))}),
    });
    let sum = 0;
    for (const {query, key} of held) {
      const plan = pbsAttentionPlan(query, key, options);
      sum += await pbsAttentionDensity(plan, options);
      tf.dispose([plan.keyIndices, plan.blockMask]);
    }
    return {...run, density: sum / held.length};
  } finally {
    tf.dispose(held);
  }
}

function letPageDraw(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
