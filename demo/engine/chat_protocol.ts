import type {ExactReason} from '../../src/index';
import type {Sampling} from '../../runner/llama/sample';
import type {AttentionName, RunProgress} from './run_protocol';

/** What one side has said. */
export type ChatTurn = {role: 'user' | 'assistant'; content: string};

/** A conversation about a document, as the page keeps it: the engine only remembers what it has read of it. */
export interface Conversation {
  /** What the model is told before. Empty: what its template says by itself. */
  system: string;
  /** Stands after `system`. Empty: there is none. */
  document: string;
  /** By turns, the user's first. */
  turns: ChatTurn[];
}

/** Tokens of a conversation, the beginning of the next answer included. */
export interface ChatCount {
  prompt: number;
  /** Those of the document by itself. */
  document: number;
  /** Those that each attention has to read: neither in its context nor kept in the browser's storage. */
  unread: Record<AttentionName, number>;
}

/** Whether a document fits beside the rest of a conversation. */
export interface DocumentFit {
  tokens: number;
  /** `tokens` was estimated by the document's beginning: far more than fits. */
  isEstimate: boolean;
  /** Tokens that a document may have. */
  room: number;
  /** As much of the beginning as fits, where not all does; empty where nothing would. */
  beginning?: string;
}

export interface ChatRequest extends Conversation {
  /** The user's turn is the last. */
  turns: ChatTurn[];
  /** How the prompt is read. Each way has a context of its own, which the next request goes on with. */
  attention: AttentionName;
  /** Most tokens to write; fewer where the context ends before. */
  maxTokens: number;
  sampling: Sampling;
  /** Reads the prompt once before the clock runs, on graphics hardware, so that shaders are compiled: times are to be compared. */
  warmUp: boolean;
  /**
   * Keeps what was read of the document in the browser's storage, where it is not kept yet, so that it need not be read again another
   * day. What is kept is used in any case. Default: no.
   */
  keep?: boolean;
  /** As a person reads it in the list of what is kept. */
  keptAs?: string;
}

export type ChatEvent =
  | {type: 'progress'; progress: RunProgress}
  /** Before the prompt is read, or after the answer. */
  | {type: 'storage'; step: 'restore' | 'keep'; attention: AttentionName; layersDone: number; layers: number}
  /** The text written so far. */
  | {type: 'text'; text: string};

export interface ChatAnswer {
  attention: AttentionName;
  text: string;
  /** By the model, by `maxTokens` or the end of the context, by the user. */
  end: 'model' | 'length' | 'stopped';
  /** Tokens written. */
  tokens: number;
  promptTokens: number;
  /** Those of the prompt that were still in the context, or came from the browser's storage. */
  reusedTokens: number;
  /** Those that came from there for this answer; absent where none did. */
  storedTokens?: number;
  /** What was written there after this answer; absent where nothing was. */
  keptBytes?: number;
  /** Why what was read is not kept though that was asked for. */
  notKept?: string;
  /** Why what is kept could not be used, and was read anew; it is deleted. */
  notRestored?: string;
  /** Reading from the storage included. */
  firstTokenMs: number;
  /** Of the tokens after the first; absent with one token. */
  tokensPerSecond?: number;
  /** The first answer with this attention: the time to its first token holds the compiling of shaders. */
  compiled: boolean;
  /** Share of the visible blocks that reading kept, mean over layers and heads; only where sparse attention ran. */
  density?: number;
  /** Why reading was exact though sparse attention was asked for. */
  exactReason?: ExactReason;
}
