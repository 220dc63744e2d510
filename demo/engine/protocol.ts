import type {BackendName} from '../backend_names';
import type {StoredModel} from '../../runner/hub/store';
import type {PrefillOptions} from '../../runner/llama/attention';
import type {Sampling} from '../../runner/llama/sample';
import type {PlacedFact} from '../fact';

export type {StoredModel};

/** Longest prompt that the page offers, in tokens; a model may take less. */
export const LONGEST_PROMPT = 16_384;

/** Most tokens that a run writes. */
export const MOST_WRITTEN_TOKENS = 1024;

/**
 * What the page asks of the worker that computes. Everything here can be cloned; callbacks go through comlink's `proxy`.
 * A call that fails rejects with an `Error` whose `name` is a `FailureName`.
 */
export interface Engine {
  /** Makes a backend current: the one asked for, else the fastest that computes correctly here. Once a worker. */
  start(backend?: BackendName): Promise<Machine>;
  /** Reads a checkpoint onto the backend, in the place of the one before; that one stays if this one fails. */
  loadModel(source: ModelSource, onProgress: (progress: LoadProgress) => void): Promise<ModelInfo>;
  /** Takes the text that prompts are cut from. */
  setText(text: string): Promise<void>;
  /** Builds the prompt without running it. */
  preview(request: PromptRequest): Promise<Preview>;
  /** Exact attention first, then PBS attention, on the same tokens. One run at a time. */
  run(request: RunRequest, onEvent: (event: RunEvent) => void): Promise<RunResult>;
  /** Ends the run in progress, which rejects with an `AbortError` after the layer or token that is computed now. */
  cancel(): void;
  /** The blocks of one head in the last run's prefill with PBS attention. */
  blockPicture(layer: number, head: number): Promise<BlockPicture>;
  /** Ends the loading in progress, which rejects with an `AbortError`; what was downloaded stays, and the next load goes on with it. */
  cancelLoad(): void;
  /** The models that were loaded by address and are kept in this browser, whole or in part. */
  listStored(): Promise<StoredModel[]>;
  /** Deletes one of them by its id. The model in use stays loaded. */
  deleteStored(id: string): Promise<void>;
}

export interface Machine {
  backend: BackendName;
  /** Name of the graphics adapter, as the browser gives it. */
  adapter: string;
  /** No graphics hardware is in play: times say nothing about a GPU. */
  software: boolean;
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
  /** Longest prompt, in tokens. */
  maxLength: number;
}

/** `find`: facts are put into the text, and the prompt ends with a question. `continue`: the prompt is text alone. */
export type Task = 'find' | 'continue';

export interface PromptRequest {
  task: Task;
  /** Tokens of the whole prompt. */
  length: number;
  /** Chooses the passage of the text. */
  seed: number;
  /** For `find`: at least one. */
  facts: PlacedFact[];
  /** Index of the fact that is asked for. */
  asked: number;
}

export interface Preview {
  /** Text around each fact, in the order of the request; for `continue`, one with the end of the prompt as `before`. */
  excerpts: Array<{before: string; sentence: string; after: string}>;
  /** Empty for `continue`. */
  question: string;
}

export interface RunRequest {
  prompt: PromptRequest;
  /** Threshold, estimate, sizes of blocks and segments, permute, precision. Exact attention takes the precision. */
  options: PrefillOptions;
  /** Most tokens to write after the prompt; `find` stops at the end of a number. */
  maxTokens: number;
  sampling: Sampling;
}

export type AttentionName = 'exact' | 'pbs';

export type RunEvent =
  /** Something was computed. */
  | {type: 'progress'; progress: RunProgress}
  /** The text written so far. */
  | {type: 'text'; attention: AttentionName; text: string}
  /** One of the two has its answer. */
  | {type: 'answer'; attention: AttentionName; answer: Answer};

export interface RunProgress {
  attention: AttentionName;
  step: 'warm-up' | 'prefill' | 'write' | 'look at blocks';
  /** Layers of this prefill that the backend has finished, of `layers`. */
  layersDone: number;
  layers: number;
  /** Prompt tokens a second through all layers, by what is finished; 0 before the first layer. */
  tokensPerSecond: number;
  /** Until the end of the run, by the speed so far; absent while there is nothing to go by. */
  secondsLeft?: number;
  /** Share of the whole run, 0 to 1. */
  done: number;
}

export interface Answer {
  /** What was written. */
  text: string;
  /** For `find`: the number in it, or the text where there is none. */
  answer?: string;
  correct?: boolean;
  /** From the prefill's call until the first token's id was read back, in milliseconds. */
  firstTokenMs: number;
  /** Tokens written. */
  tokens: number;
  /** Of the tokens after the first; absent with one token. */
  tokensPerSecond?: number;
}

export interface RunResult {
  task: Task;
  /** Tokens in the prompt. */
  length: number;
  exact: Answer;
  pbs: Answer;
  kept: KeptBlocks;
}

/** What PBS attention kept of the causally visible blocks, shares from 0 to 1; a query's own segment is in both. */
export interface KeptBlocks {
  /** Mean over the layers looked at, and their heads. */
  density: number;
  /** By layer, then head. Fewer layers than the model has where their queries and keys did not fit in memory. */
  heads: number[][];
  /** In the same places, how many blocks of the fact the question reads there. */
  factBlocks: number[][];
}

/** Which blocks one head kept, without and with permutation of the keys. */
export interface BlockPicture {
  /** Tokens a block of queries, and a block of keys. */
  blockSize: number;
  keyBlockSize: number;
  segmentSize: number;
  queryBlocks: number;
  keyBlocks: number;
  /** Rows are query blocks, columns key blocks in the order of the run: 1 where kept. */
  unpermuted: BlockMask;
  permuted: BlockMask;
  /** Query blocks that hold the question; empty for `continue`. */
  question: number[];
}

export interface BlockMask {
  /** `[queryBlocks × keyBlocks]`, row-major. */
  kept: Uint8Array;
  /** Share of the visible blocks. */
  density: number;
  /** Key blocks that hold tokens of the asked fact in this order of keys. */
  needle: number[];
}
