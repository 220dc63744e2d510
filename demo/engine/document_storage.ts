import type {Context} from '../../runner/llama/context';
import type {ContextModel, LayerHooks} from '../../runner/llama/context_file';
import type {ChatWriter} from './chat_prompt';
import type {ChatAnswer, ChatRequest, Conversation} from './chat_protocol';
import type {KeptContexts, Reading} from './kept_contexts';
import type {AttentionName} from './protocol';

/** How a chat reads. */
export interface ReadingForm {
  model: ContextModel;
  /** Of the model. */
  identity: string;
  precision: 'float32' | 'float16';
  writer: ChatWriter;
}

/** What came from the storage before an answer. */
export interface Restored {
  tokens: number;
  /** Looking and reading, in milliseconds. */
  ms: number;
  /** Why what is kept could not be used. */
  failure?: string;
}

/** What a chat has read of documents, in the browser's storage. */
export class DocumentStorage {
  private last?: {system: string; document: string; tokens: readonly number[]};

  constructor(
    private readonly kept: KeptContexts,
    private readonly form: ReadingForm,
  ) {}

  /** Tokens of a prompt that are kept. */
  async keptTokens(ids: readonly number[], conversation: Conversation, attention: AttentionName): Promise<number> {
    const reading = this.reading(ids, conversation, attention);
    return reading !== undefined && (await this.kept.has(reading)) ? reading.tokens.length : 0;
  }

  /**
   * Puts what is kept of a document into a context that holds less of it.
   *
   * @throws the signal's reason.
   */
  async restore(
    ids: readonly number[],
    request: ChatRequest,
    context: Context,
    hooks: LayerHooks,
  ): Promise<Restored | undefined> {
    if (request.document === '') return undefined;
    const begin = performance.now();
    const reading = this.reading(ids, request, request.attention);
    if (reading === undefined || context.reusable(ids) >= reading.tokens.length) return undefined;
    const restored = (tokens: number, failure?: string): Restored => {
      return {tokens, ms: performance.now() - begin, ...(failure !== undefined && {failure})};
    };
    try {
      return restored((await this.kept.restore(reading, context, hooks)) ? reading.tokens.length : 0);
    } catch (error) {
      hooks.signal?.throwIfAborted();
      // It is read anew.
      return restored(0, (error as Error).message);
    }
  }

  /** Keeps what was read of a document, where it is not kept yet. Says why where that fails: the answer is there. */
  async keep(
    ids: readonly number[],
    request: ChatRequest,
    context: Context,
    hooks: LayerHooks,
  ): Promise<Pick<ChatAnswer, 'keptBytes' | 'notKept'>> {
    const reading = this.reading(ids, request, request.attention);
    if (reading === undefined) return {};
    try {
      const name = request.keptAs ?? 'what was read of a document';
      const keptBytes = await this.kept.keep(reading, context, name, hooks);
      return keptBytes === undefined ? {} : {keptBytes};
    } catch (error) {
      return {notKept: hooks.signal?.aborted ? 'it was stopped' : (error as Error).message};
    }
  }

  /** Nothing where there is no document. */
  private reading(
    ids: readonly number[],
    {system, document}: Conversation,
    attention: AttentionName,
  ): Reading | undefined {
    if (document === '') return undefined;
    const {model, identity, precision, writer} = this.form;
    if (this.last?.system !== system || this.last.document !== document) {
      this.last = {system, document, tokens: writer.beginning({system, document})};
    }
    const {tokens} = this.last;
    const other = tokens.findIndex((token, at) => token !== ids[at]);
    if (other === 0) return undefined;
    return {
      model,
      identity: `${identity}; ${attention} attention; ${precision}`,
      // A question may share its first token with what stands before it.
      tokens: other < 0 ? tokens : tokens.slice(0, other),
    };
  }
}
