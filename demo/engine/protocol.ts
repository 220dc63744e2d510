import type {BackendName} from '../backend_names';
import type {StoredModel} from '../../runner/hub/store';
import type {ChatAnswer, ChatCount, ChatEvent, ChatRequest, Conversation, DocumentFit} from './chat_protocol';
import type {DeviceResult, MeasureEvent, MeasureRequest} from './device_protocol';
import type {BlockPicture, Preview, PromptRequest, RunEvent, RunRequest, RunResult} from './run_protocol';

export type * from './chat_protocol';
export type * from './device_protocol';
export type * from './run_protocol';
export type {StoredModel};

/** Longest prompt that the page offers, in tokens; a model may take less. */
export const LONGEST_PROMPT = 16_384;

/** Longest context of a chat, answers included; a model may take less. Past it nothing was measured. */
export const LONGEST_CONTEXT = 32_768;

/** Most tokens that a run or an answer writes. */
export const MOST_WRITTEN_TOKENS = 1024;

/**
 * What the page asks of the worker that computes. Everything here can be cloned; callbacks go through comlink's `proxy`.
 * A call that fails rejects with an `Error` whose `name` is a `FailureName`.
 */
export interface Engine {
  /**
   * Makes a backend current: the one asked for, else the fastest that computes correctly here; and uses the one of the calibrations that is
   * of it and its adapter, if any. Once a worker.
   */
  start(backend?: BackendName, calibrations?: readonly unknown[]): Promise<Machine>;
  /** Reads a checkpoint onto the backend, in the place of the one before; that one stays if this one fails. */
  loadModel(source: ModelSource, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo>;
  /** Takes the text that prompts are cut from. */
  setText(text: string): Promise<void>;
  /** Builds the prompt without running it. */
  preview(request: PromptRequest): Promise<Preview>;
  /** Exact attention first, then PBS attention, on the same tokens. One run at a time. */
  run(request: RunRequest, onEvent: (event: RunEvent) => void): Promise<RunResult>;
  /**
   * Ends the run, the answer or the measurement in progress after the layer or token that is computed now: it rejects with an `AbortError`, but for an answer
   * of which something is written.
   */
  cancel(): void;
  /** The blocks of one head in the last run's prefill with PBS attention. */
  blockPicture(layer: number, head: number): Promise<BlockPicture>;
  /** Counts a conversation's tokens in the model's form of chats. */
  countChat(conversation: Conversation): Promise<ChatCount>;
  /** Whether a conversation's document fits beside the rest of it and an answer of `maxTokens`. */
  fitDocument(conversation: Conversation, maxTokens: number): Promise<DocumentFit>;
  /** Answers the last turn. What was read and written stays on the backend for the next request, until the model is another. */
  chat(request: ChatRequest, onEvent: (event: ChatEvent) => void): Promise<ChatAnswer>;
  /** Frees what the chat has read; the next request reads all of its prompt. */
  forgetChat(): Promise<void>;
  /** Calibrates attention, has `auto` go by that, and times ways of attending by length. */
  measure(request: MeasureRequest, onEvent: (event: MeasureEvent) => void): Promise<DeviceResult>;
  /** Has `auto` go by the class of the device again; gives `ModelInfo.sparseFrom` by that. */
  forgetCalibration(): Promise<number | undefined>;
  /** Ends the loading in progress, which rejects with an `AbortError`; what was downloaded stays, and the next load goes on with it. */
  cancelLoad(): void;
  /** The models that were loaded by address and are kept in this browser, whole or in part. */
  listStored(): Promise<StoredModel[]>;
  /** Deletes one of them by its id. The model in use stays loaded. */
  deleteStored(id: string): Promise<void>;
  /** What was read of documents and is kept in this browser; `complete` is false where writing it was cut off. */
  listKept(): Promise<StoredModel[]>;
  /** Deletes some of it by its id. What is in memory stays. */
  deleteKept(id: string): Promise<void>;
}

export interface Machine {
  backend: BackendName;
  /** Name of the graphics adapter, as the browser gives it. */
  adapter: string;
  /** No graphics hardware is in play: times say nothing about a GPU. */
  software: boolean;
  /** Optional parts of the device, as WebGPU names them. */
  features: string[];
  /** When the calibration was made by which it chooses between exact and sparse attention, as `toISOString` writes it; absent without. */
  calibrated?: string;
  /** Why this backend and not another. */
  reason: string;
  /** Whether `precision: 'float16'` does anything: on matrix units, or in the shader's float16. */
  float16: 'matrix units' | 'shader' | 'none';
}

/**
 * Files that the user picked; the URL of a folder with `config.json`, `tokenizer.json` and `model.safetensors`; or an address as a
 * person types it, of a hub or a `.gguf` file (`parseModelAddress`), which is kept in this browser. `hub` is the base of another hub than
 * https://huggingface.co.
 */
export type ModelSource = {files: File[]} | {url: string} | {address: string; hub?: string};

export interface LoadProgress {
  /** What `done` and `total` count. */
  step: 'download' | 'upload';
  /** Bytes of a download, tensors of an upload. */
  done: number;
  total: number;
  /** Of a download by address, over the last seconds; absent while there is nothing to go by. */
  bytesPerSecond?: number;
}

export interface ModelInfo {
  architecture: string;
  parameters: number;
  layers: number;
  heads: number;
  keyValueHeads: number;
  headDim: number;
  /** Longest prompt of a run, in tokens. */
  maxLength: number;
  /** Longest context of a chat, its answers included. */
  contextLength: number;
  /** What sets it: the model, the largest tensor of the device, or `LONGEST_CONTEXT`. */
  contextLimit: 'model' | 'device' | 'page';
  /** Whether its files say how chats are written; else it continues texts. */
  isChat: boolean;
  /** What its weights take on the backend, and each token of a context beside them. */
  weightBytes: number;
  cacheBytesPerToken: number;
  /** Whether what is read of documents can be kept in this browser's storage. */
  canKeep?: boolean;
  /** Length from which on sparse attention is expected to read a chat's prompts faster on this class of device; absent where none is. */
  sparseFrom?: number;
}
