import type {Tokenizer} from '@huggingface/tokenizers';
import type {Backend} from '../backend';
import type {PrefillAttention} from '../../runner/llama/attention';
import {generate} from '../../runner/llama/generate';
import type {LlamaModel} from '../../runner/llama/model';
import type {PrefillRequest} from '../../runner/llama/prefill_request';
import {decode} from '../../runner/tokenizer';
import {HeldLayers, type RunBlocks} from './blocks';
import {rethrow} from './device_failure';
import {RunClock, type Step} from './progress';
import type {Prompt} from './prompt';
import type {Answer, AttentionName, RunEvent, RunRequest, RunResult} from './protocol';

/** What a run computes with. */
export interface Session {
  backend: Backend;
  model: LlamaModel;
  tokenizer: Tokenizer;
}

export type RunSettings = Omit<RunRequest, 'prompt'>;

export interface RunHooks {
  onEvent?: (event: RunEvent) => void;
  signal?: AbortSignal;
}

const PREFILL: Record<AttentionName, PrefillAttention> = {exact: 'flash', pbs: 'pbs'};

/** A token past the default segment: PBS attention takes its sparse path, and every shader is compiled. */
const SHORT_WARM_UP = 257;

/** The first two tokens: those of decoding compile shaders too. */
const WARM_UP_TOKENS = 2;

/**
 * A prefill of which the warm-up says that it takes less is not followed layer by layer: nobody could see it or stop it,
 * and asking the GPU after each layer took 3 of 34 ms on an H100.
 */
const FOLLOWED_MS = 1000;

/** Tokens that a sentence with a number takes, where the answer is one. */
const SENTENCE_TOKENS = 48;

/**
 * Reads a prompt with exact attention and with PBS attention, under equal conditions: each is warmed up, then timed, and
 * nothing but the answer is computed while the clock runs.
 *
 * @throws Failure if the device reported an error meanwhile; else what failed.
 */
export async function runBoth(
  session: Session,
  prompt: Prompt,
  settings: RunSettings,
  hooks: RunHooks = {},
): Promise<{result: RunResult; blocks: RunBlocks}> {
  const held = new HeldLayers();
  try {
    const warmUpIds = prompt.ids.slice(prompt.ids.length - warmUpLength(session, prompt.ids.length));
    const lengths = {warmUp: warmUpIds.length, prompt: prompt.ids.length};
    const clock = new RunClock(session.model.config.layers, lengths, hooks.onEvent);
    const answers = {} as Record<AttentionName, Answer>;
    for (const attention of ['exact', 'pbs'] as const) {
      const one = new OneRun(session, prompt, settings, hooks, clock, attention);
      if (warmUpIds.length > 0) await one.warmUp(warmUpIds);
      const answer = await one.answer(attention === 'pbs' ? held : undefined);
      answers[attention] = answer;
      hooks.onEvent?.({type: 'answer', attention, answer});
    }
    clock.begin('pbs', 'look at blocks');
    const blocks = await held.look(prompt, settings.options);
    session.backend.throwIfFailed();
    const task = prompt.answer === undefined ? 'continue' : 'find';
    return {result: {task, length: prompt.ids.length, ...answers, kept: blocks.kept()}, blocks};
  } catch (error) {
    return rethrow(error, session.backend, hooks.signal);
  } finally {
    held.dispose();
  }
}

/**
 * Tokens of the warm-up. On graphics hardware the whole prompt, because tfjs picks shaders and buffers by shape;
 * elsewhere just enough to compile the shaders, of which plain JavaScript has none: a prompt takes a minute there.
 */
function warmUpLength({backend}: Session, length: number): number {
  if (backend.backend === 'cpu') return 0;
  return backend.software ? Math.min(length, SHORT_WARM_UP) : length;
}

/** One way of attending. */
class OneRun {
  private followed = true;
  /** When each layer of the last prefill that was followed had finished. */
  private readonly layerTimes: number[] = [];

  constructor(
    private readonly session: Session,
    private readonly prompt: Prompt,
    private readonly settings: RunSettings,
    private readonly hooks: RunHooks,
    private readonly clock: RunClock,
    private readonly attention: AttentionName,
  ) {}

  async warmUp(ids: readonly number[]): Promise<void> {
    const {model, backend} = this.session;
    // Held as in the timed prefill, so that the buffers which that one takes meanwhile are there.
    const held = this.attention === 'pbs' ? new HeldLayers() : undefined;
    try {
      await generate(model, ids, {...this.prefillRequest('warm-up', held), maxTokens: WARM_UP_TOKENS});
    } finally {
      held?.dispose();
    }
    backend.throwIfFailed();
    // Without the first layer, which compiles the shaders.
    const ms = this.layerTimes.at(-1)! - this.layerTimes[0];
    this.followed = (ms * this.prompt.ids.length) / ids.length > FOLLOWED_MS;
  }

  /** @param held takes each layer's queries and keys. */
  async answer(held?: HeldLayers): Promise<Answer> {
    const {model, tokenizer, backend} = this.session;
    const {maxTokens, sampling} = this.settings;
    const {isChat} = this.prompt;
    const find = this.prompt.answer !== undefined;
    const text = (tokens: readonly number[]) => decode(tokenizer, tokens);
    const {tokens, firstTokenMs, restMs} = await generate(model, this.prompt.ids, {
      ...this.prefillRequest('prefill', held),
      maxTokens: find && isChat ? Math.max(maxTokens, SENTENCE_TOKENS) : maxTokens,
      sampling,
      // A number, then something else, or a new line: what follows is chatter. A sentence may begin with other numbers.
      stop: (soFar) => find && (isChat ? this.judge(text(soFar).slice(0, -1)).correct! : /\d\D|\n/.test(text(soFar))),
      onToken: (soFar) => {
        backend.throwIfFailed();
        if (soFar.length === 1) this.clock.begin(this.attention, 'write');
        this.hooks.onEvent?.({type: 'text', attention: this.attention, text: text(soFar)});
      },
    });
    backend.throwIfFailed();
    const speed = tokens.length > 1 && {tokensPerSecond: (1000 * (tokens.length - 1)) / restMs};
    return {text: text(tokens), ...this.judge(text(tokens)), firstTokenMs, tokens: tokens.length, ...speed};
  }

  /** The number that begins the text, or stands in a sentence, or its words where there is none, held against the answer. */
  private judge(text: string): Pick<Answer, 'answer' | 'correct'> {
    if (this.prompt.answer === undefined) return {};
    const numbers = (text.match(this.prompt.isChat ? /\d+(,\d{3})*/g : /^\s*\d+/) ?? []).map((found) =>
      found.replace(/\D/g, ''),
    );
    const answer = numbers.find((number) => number === this.prompt.answer) ?? numbers[0] ?? text.trim();
    return {answer, correct: answer === this.prompt.answer};
  }

  private prefillRequest(step: Step, held?: HeldLayers): PrefillRequest {
    this.clock.begin(this.attention, step);
    return {
      ...(held && {onAttention: (_layer, query, key) => held.hold(query, key)}),
      attention: PREFILL[this.attention],
      options: this.settings.options,
      signal: this.hooks.signal,
      ...(this.followed && {
        onLayer: (layer) => {
          this.session.backend.throwIfFailed();
          this.layerTimes[layer] = performance.now();
          this.clock.finishedLayer(layer);
        },
      }),
    };
  }
}
