import type {Backend} from '../backend';
import {chooseBackend} from '../backend';
import type {BackendName} from '../backend_names';
import {Failure, failAs} from '../../runner/failure';
import {OPFSStore} from '../../runner/hub/opfs_store';
import {useAttentionCalibration, type AttentionCalibration} from '../../src/index';
import type {RunBlocks} from './blocks';
import {Chat, readingPrecision} from './chat';
import type {ChatAnswer, ChatCount, ChatEvent, ChatRequest, Conversation, DocumentFit} from './chat_protocol';
import {measureDevice} from './device_bench';
import {KeptContexts} from './kept_contexts';
import {loadReader, type Reader} from './load';
import {buildPrompt, previewPrompt} from './prompt';
import type {
  BlockPicture,
  DeviceResult,
  Engine,
  LoadProgress,
  Machine,
  MeasureEvent,
  MeasureRequest,
  ModelInfo,
  ModelSource,
  Preview,
  PromptRequest,
  RunEvent,
  RunRequest,
  RunResult,
  StoredModel,
} from './protocol';
import {runBoth} from './run';
import {sparseFrom} from './sparse_reading';

/** Beside that of the models. */
const contextStore = new OPFSStore('contexts');

/** What the worker offers: one backend, one model, one text, one chat, one run or answer at a time. */
export class LocalEngine implements Engine {
  private readonly kept = new KeptContexts(contextStore);
  private backend?: Backend;
  private reader?: Reader;
  private chatting?: Chat;
  private text = '';
  private blocks?: RunBlocks;
  private running?: AbortController;
  /** Of the last run, whatever came of it. */
  private ended: Promise<unknown> = Promise.resolve();
  private loading?: AbortController;

  async start(backend?: BackendName, calibrations: readonly unknown[] = []): Promise<Machine> {
    this.backend = await chooseBackend(backend);
    // Without its function, which cannot be cloned.
    const {adapter, software, features, reason, float16} = this.backend;
    const calibrated = calibrations.map(tryCalibration).find((date) => date !== undefined);
    return {backend: this.backend.backend, adapter, software, features, calibrated, reason, float16};
  }

  /** A run that is in progress ends first: see `cancel`. */
  async loadModel(source: ModelSource, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo> {
    const backend = ready(this.backend, 'start');
    if (this.loading) throw new Error('a model is being loaded: wait for its end, after cancelLoad or without');
    const loading = new AbortController();
    this.loading = loading;
    try {
      const reader = await loadReader(source, onProgress, loading.signal);
      const canKeep = reader.identity !== undefined && (await contextStore.isAvailable());
      // What runs has the model from before to its end.
      while (this.running) await this.ended;
      if (loading.signal.aborted) {
        reader.model.dispose();
        throw new Failure('AbortError', 'loading the model was cancelled');
      }
      this.chatting?.forget();
      this.reader?.model.dispose();
      this.reader = reader;
      this.chatting = new Chat(backend, reader, canKeep ? this.kept : undefined);
      backend.throwIfFailed();
      if (!backend.software) this.chatting.compileAhead();
      return {...reader.info, canKeep, sparseFrom: this.sparseFrom()};
    } finally {
      this.loading = undefined;
    }
  }

  async setText(text: string): Promise<void> {
    this.text = text;
  }

  async preview(request: PromptRequest): Promise<Preview> {
    const {tokenizer, frame} = this.checkLength(request);
    return previewPrompt(tokenizer, this.text, request, frame);
  }

  run(request: RunRequest, onEvent: (event: RunEvent) => void): Promise<RunResult> {
    return this.alone(async (signal) => {
      const {model, tokenizer, frame} = this.checkLength(request.prompt);
      const prompt = buildPrompt(tokenizer, this.text, request.prompt, frame);
      const session = {backend: ready(this.backend, 'start'), model, tokenizer};
      const {result, blocks} = await runBoth(session, prompt, request, {onEvent, signal});
      this.blocks = blocks;
      return result;
    });
  }

  async countChat(conversation: Conversation): Promise<ChatCount> {
    return ready(this.chatting, 'loadModel').count(conversation);
  }

  async fitDocument(conversation: Conversation, maxTokens: number): Promise<DocumentFit> {
    return ready(this.chatting, 'loadModel').fit(conversation, maxTokens);
  }

  chat(request: ChatRequest, onEvent: (event: ChatEvent) => void): Promise<ChatAnswer> {
    return this.alone((signal) => ready(this.chatting, 'loadModel').answer(request, {onEvent, signal}));
  }

  measure(request: MeasureRequest, onEvent: (event: MeasureEvent) => void): Promise<DeviceResult> {
    const send = (event: MeasureEvent) =>
      onEvent(event.type === 'calibration' ? {...event, sparseFrom: this.sparseFrom()} : event);
    return this.alone((signal) => measureDevice(ready(this.backend, 'start'), request, send, signal));
  }

  async forgetCalibration(): Promise<number | undefined> {
    useAttentionCalibration(undefined);
    return this.sparseFrom();
  }

  async forgetChat(): Promise<void> {
    this.chatting?.forget();
  }

  cancel(): void {
    this.running?.abort();
  }

  async blockPicture(layer: number, head: number): Promise<BlockPicture> {
    return ready(this.blocks, 'run').picture(layer, head);
  }

  cancelLoad(): void {
    this.loading?.abort();
  }

  listStored(): Promise<StoredModel[]> {
    return failAs('DownloadError', () => new OPFSStore().list());
  }

  deleteStored(id: string): Promise<void> {
    return failAs('DownloadError', () => new OPFSStore().delete(id));
  }

  listKept(): Promise<StoredModel[]> {
    return failAs('DownloadError', () => this.kept.list());
  }

  deleteKept(id: string): Promise<void> {
    return failAs('DownloadError', () => this.kept.delete(id));
  }

  /** @throws Failure if something runs already. */
  private async alone<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.running) throw new Failure('PromptError', 'a run is in progress; cancel it first');
    const running = new AbortController();
    this.running = running;
    const result = run(running.signal);
    this.ended = result.catch(() => {});
    try {
      return await result;
    } finally {
      this.running = undefined;
    }
  }

  private sparseFrom(): number | undefined {
    const {backend, reader} = this;
    return backend && reader && sparseFrom(reader.model.config, reader.info.contextLength, readingPrecision(backend));
  }

  private checkLength({length}: PromptRequest): Reader {
    const reader = ready(this.reader, 'loadModel');
    if (length > reader.info.maxLength) {
      throw new Failure(
        'ContextTooLongError',
        `the prompt would be ${length} tokens; accepted: at most ${reader.info.maxLength} with this model`,
      );
    }
    return reader;
  }
}

/** When it was made, if it is one of this device; it is in use then. */
function tryCalibration(stored: unknown): string | undefined {
  try {
    useAttentionCalibration(stored as AttentionCalibration);
    return (stored as AttentionCalibration | undefined)?.date;
  } catch {
    return undefined;
  }
}

/** A fault of the page, not of the user: it called in the wrong order. */
function ready<T>(part: T | undefined, first: string): T {
  if (part === undefined) throw new Error(`the engine is not ready: call ${first} first`);
  return part;
}
