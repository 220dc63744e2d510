import type {PrefillOptions} from '../../runner/llama/attention';
import type {Sampling} from '../../runner/llama/sample';
import type {PlacedFact} from '../fact';

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
