import {Failure} from '../../runner/failure';
import {Context} from '../../runner/llama/context';
import type {LayerHooks} from '../../runner/llama/context_file';
import {generate, type GenerateRequest} from '../../runner/llama/generate';
import {decode} from '../../runner/tokenizer';
import type {Backend} from '../backend';
import {ChatWriter} from './chat_prompt';
import type {ChatAnswer, ChatCount, ChatEvent, ChatRequest, Conversation, DocumentFit} from './chat_protocol';
import {rethrow} from './device_failure';
import {DocumentStorage, type Restored} from './document_storage';
import type {KeptContexts} from './kept_contexts';
import type {Reader} from './load';
import {RunClock} from './progress';
import type {AttentionName} from './protocol';
import {SparseReading} from './sparse_reading';

export interface ChatHooks {
  onEvent?: (event: ChatEvent) => void;
  signal?: AbortSignal;
}

/** On graphics hardware a prompt of no more tokens is not followed layer by layer: it is read before anybody could stop it. */
const FOLLOWED_TOKENS = 512;

/** The first two tokens: those of decoding compile shaders too. */
const WARM_UP_TOKENS = 2;

/** Of the prompts whose shaders are compiled when the model is loaded: a question alone, and a document. */
const AHEAD_TOKENS = {question: 64, document: 4096};

/** Precision by which a device reads: float16 where its sums are float32, so that no model's values leave its range. */
export function readingPrecision({float16}: Pick<Backend, 'float16'>): 'float32' | 'float16' {
  return float16 === 'matrix units' ? 'float16' : 'float32';
}

/** Answers of one model, by exact and by sparse attention; what each has read stays for the next question. */
export class Chat {
  private readonly writer: ChatWriter;
  private readonly precision: 'float32' | 'float16';
  private readonly contexts: Record<AttentionName, Context> = {exact: new Context(), pbs: new Context()};
  private readonly storage?: DocumentStorage;
  /** Whose shaders are compiled. */
  private readonly compiled = new Set<AttentionName>();
  private ahead?: Promise<void>;

  /** @param kept where what is read of documents may be kept; nothing is where the model has no identity. Default: nowhere. */
  constructor(
    private readonly backend: Backend,
    private readonly reader: Reader,
    kept?: KeptContexts,
  ) {
    const {model, tokenizer, frame, chat, identity} = reader;
    // A form without a frame could not be written.
    this.writer = new ChatWriter(tokenizer, frame && chat);
    this.precision = readingPrecision(backend);
    if (kept && identity !== undefined) {
      this.storage = new DocumentStorage(kept, {model, identity, precision: this.precision, writer: this.writer});
    }
  }

  /** Compiles the shaders of the first answers, which wait for it. What fails here fails again there, and is told. */
  compileAhead(): void {
    this.ahead = this.compileAll().catch(() => {});
  }

  private async compileAll(): Promise<void> {
    const {model, info} = this.reader;
    const request = {attention: 'flash', options: {precision: this.precision}} as const;
    const tokens = Math.min(AHEAD_TOKENS.document, info.contextLength - 1);
    const reading = new SparseReading(info, {precision: this.precision, auto: false});
    try {
      await model.compileAhead(Math.min(AHEAD_TOKENS.question, tokens), request);
      await model.compileAhead(tokens, request);
      await model.compileAhead(tokens, {...request, attend: reading.attend});
    } finally {
      reading.dispose();
    }
    this.compiled.add('exact').add('pbs');
  }

  async count(conversation: Conversation): Promise<ChatCount> {
    const estimate = this.writer.tooLong(conversation, this.reader.info.contextLength);
    if (estimate !== undefined) {
      return {prompt: estimate, document: estimate, unread: {exact: estimate, pbs: estimate}};
    }
    const ids = this.writer.draft(conversation);
    const unread = async (attention: AttentionName) => {
      const held = this.contexts[attention].reusable(ids);
      // What cannot be looked at counts as not there.
      const kept = await this.storage?.keptTokens(ids, conversation, attention).catch(() => 0);
      return ids.length - Math.max(held, kept ?? 0);
    };
    return {
      prompt: ids.length,
      document: this.writer.lengthOf(conversation.document),
      unread: {exact: await unread('exact'), pbs: await unread('pbs')},
    };
  }

  fit(conversation: Conversation, maxTokens: number): DocumentFit {
    return this.writer.fit(conversation, this.reader.info.contextLength - maxTokens);
  }

  /**
   * Answers the last turn. Stopped while it writes, it gives what is written.
   *
   * @throws Failure if the prompt is longer than the context, or the device reported an error; else what failed.
   */
  async answer(request: ChatRequest, hooks: ChatHooks = {}): Promise<ChatAnswer> {
    const {contextLength} = this.reader.info;
    const estimate = this.writer.tooLong(request, contextLength);
    const ids = estimate === undefined ? this.writer.write(request) : [];
    if (estimate !== undefined || ids.length >= contextLength) {
      throw new Failure(
        'ContextTooLongError',
        `the prompt has ${estimate === undefined ? ids.length : `about ${estimate}`} tokens; accepted: at most ${contextLength - 1} of the ${contextLength} that this model reads, and one to write`,
      );
    }
    try {
      const context = this.contexts[request.attention];
      const restored = await this.storage?.restore(ids, request, context, this.follow('restore', request, hooks));
      if (request.warmUp && !this.backend.software) await this.warmUp(ids, request.attention, hooks);
      const answer = withRestored(await this.read(ids, request, hooks), restored);
      return request.keep ? {...answer, ...(await this.keep(ids, request, hooks))} : answer;
    } catch (error) {
      return rethrow(error, this.backend, hooks.signal);
    }
  }

  private async keep(
    ids: readonly number[],
    request: ChatRequest,
    hooks: ChatHooks,
  ): Promise<Pick<ChatAnswer, 'keptBytes' | 'notKept'>> {
    if (this.storage === undefined) return {notKept: 'there is no storage for this model'};
    const follow = this.follow('keep', request, hooks);
    return this.storage.keep(ids, request, this.contexts[request.attention], {
      ...follow,
      onLayer: (...layers) => {
        // Else what a device that failed reads back, zeros say, would come again another day.
        this.backend.throwIfFailed();
        follow.onLayer(...layers);
      },
    });
  }

  private follow(
    step: 'restore' | 'keep',
    {attention}: ChatRequest,
    {signal, onEvent}: ChatHooks,
  ): Required<Pick<LayerHooks, 'onLayer'>> & LayerHooks {
    return {signal, onLayer: (layersDone, layers) => onEvent?.({type: 'storage', step, attention, layersDone, layers})};
  }

  /** Frees what was read. */
  forget(): void {
    Object.values(this.contexts).forEach((context) => context.dispose());
  }

  /** The answer with what reading kept, which is looked at when the clock has stopped. */
  private async read(ids: readonly number[], request: ChatRequest, hooks: ChatHooks): Promise<ChatAnswer> {
    const reused = this.contexts[request.attention].reusable(ids);
    // A question after what stays has no blocks to leave out.
    const isQuestion = this.reader.model.readsInSteps(ids.length - reused, reused);
    const reading = isQuestion ? undefined : this.reading(request.attention);
    if (reading === undefined) return this.write(ids, request, hooks);
    try {
      const answer = await this.write(ids, request, hooks, reading);
      const density = await reading.density();
      const {exactReason} = reading;
      return {...answer, ...(density !== undefined && {density}), ...(exactReason !== undefined && {exactReason})};
    } finally {
      reading.dispose();
    }
  }

  private async write(
    ids: readonly number[],
    request: ChatRequest,
    hooks: ChatHooks,
    reading?: SparseReading,
  ): Promise<ChatAnswer> {
    const {attention, sampling} = request;
    const {model, tokenizer, info} = this.reader;
    const maxTokens = Math.min(request.maxTokens, info.contextLength - ids.length);
    const context = this.contexts[attention];
    const reusedTokens = context.reusable(ids);
    const clock = this.clock({warmUp: 0, prompt: ids.length - reusedTokens}, hooks);
    const compiled = this.compiles(attention);
    const begin = performance.now();
    await this.ahead;
    let [first, last] = [begin, begin];
    let written: readonly number[] = [];
    let end: ChatAnswer['end'] = 'model';
    try {
      clock.begin(attention, 'prefill');
      const {tokens} = await generate(model, ids, {
        ...this.prefill(reading, hooks, this.follows(ids.length - reusedTokens) ? clock : undefined),
        ...{context, maxTokens, sampling},
        onToken: (soFar) => {
          this.backend.throwIfFailed();
          written = [...soFar];
          last = performance.now();
          if (written.length === 1) {
            first = last;
            clock.begin(attention, 'write');
          }
          hooks.onEvent?.({type: 'text', text: this.textOf(written)});
        },
      });
      if (tokens.length === maxTokens) end = 'length';
      // The end token came first.
      if (tokens.length === 0) first = last = performance.now();
    } catch (error) {
      if (!hooks.signal?.aborted || written.length === 0) throw error;
      end = 'stopped';
    }
    if (compiled) this.prepareToContinue(context);
    this.backend.throwIfFailed();
    this.compiled.add(attention);
    return {
      ...{attention, text: decode(tokenizer, written), end, tokens: written.length},
      ...{promptTokens: ids.length, reusedTokens, firstTokenMs: first - begin, compiled},
      ...(written.length > 1 && {tokensPerSecond: (1000 * (written.length - 1)) / (last - first)}),
    };
  }

  /** Reads and forgets what is to be read, since tfjs picks shaders and buffers by shape, and writes a little. */
  private async warmUp(ids: readonly number[], attention: AttentionName, hooks: ChatHooks): Promise<void> {
    const context = this.contexts[attention];
    const reusedTokens = context.reusable(ids);
    const clock = this.clock({warmUp: ids.length - reusedTokens, prompt: 0}, hooks);
    clock.begin(attention, 'warm-up');
    const reading = this.reading(attention);
    try {
      const request = {...this.prefill(reading, hooks, clock), context, maxTokens: WARM_UP_TOKENS};
      await generate(this.reader.model, ids, request);
    } finally {
      reading?.dispose();
    }
    this.prepareToContinue(context);
    context.truncate(reusedTokens);
    this.backend.throwIfFailed();
    this.compiled.add(attention);
  }

  /** The next question shall not wait for shaders. */
  private prepareToContinue(context: Context): void {
    if (!this.backend.software) context.prepareToContinue(this.reader.model);
  }

  private prefill(
    reading: SparseReading | undefined,
    {signal}: ChatHooks,
    clock?: RunClock,
  ): Omit<GenerateRequest, 'maxTokens'> {
    return {
      attention: 'flash',
      options: {precision: this.precision},
      ...(reading && {attend: reading.attend}),
      signal,
      ...(clock && {
        onLayer: (layer) => {
          this.backend.throwIfFailed();
          clock.finishedLayer(layer);
        },
      }),
    };
  }

  private reading(attention: AttentionName): SparseReading | undefined {
    return attention === 'pbs'
      ? new SparseReading(this.reader.info, {precision: this.precision, auto: true})
      : undefined;
  }

  private clock(lengths: {warmUp: number; prompt: number}, {onEvent}: ChatHooks): RunClock {
    return new RunClock(this.reader.info.layers, lengths, onEvent, 1);
  }

  private follows(tokens: number): boolean {
    return this.backend.software || tokens > FOLLOWED_TOKENS;
  }

  /** Plain JavaScript has no shaders. */
  private compiles(attention: AttentionName): boolean {
    return this.backend.backend !== 'cpu' && !this.compiled.has(attention);
  }

  /** Without the half of a character that the next token ends. */
  private textOf(tokens: readonly number[]): string {
    return decode(this.reader.tokenizer, tokens).replace(/\uFFFD+$/, '');
  }
}

/** The time to the first token is that of who waits for it. */
function withRestored(answer: ChatAnswer, restored: Restored | undefined): ChatAnswer {
  if (restored === undefined) return answer;
  const {tokens, ms, failure} = restored;
  return {
    ...answer,
    firstTokenMs: answer.firstTokenMs + ms,
    ...(tokens > 0 && {storedTokens: Math.min(tokens, answer.reusedTokens)}),
    ...(failure !== undefined && {notRestored: failure}),
  };
}
