import * as tf from '@tensorflow/tfjs-core';
import type {Tokenizer} from '@huggingface/tokenizers';
import {Failure, failAs} from '../../runner/failure';
import {openByAddress} from '../../runner/hub/open_by_address';
import {OPFSStore} from '../../runner/hub/opfs_store';
import type {ChatForm} from '../../runner/llama/chat_form';
import {openCheckpoint, type Checkpoint} from '../../runner/llama/checkpoint';
import {LlamaModel} from '../../runner/llama/model';
import {mostPositions} from '../../runner/llama/rotary';
import {largestTensor} from '../../runner/llama/tensor_limit';
import {createTokenizer} from '../../runner/tokenizer';
import {chatFrame, type ChatFrame} from './chat_frame';
import {identityOf} from './model_identity';
import {
  LONGEST_CONTEXT,
  LONGEST_PROMPT,
  MOST_WRITTEN_TOKENS,
  type LoadProgress,
  type ModelInfo,
  type ModelSource,
} from './protocol';

/** A model on the backend, and what turns text into its tokens. */
export interface Reader {
  model: LlamaModel;
  tokenizer: Tokenizer;
  info: ModelInfo;
  /** Tells the model from others; absent where that cannot be said. */
  identity?: string;
  /** How the model's chats are written, where its files say it. */
  chat?: ChatForm;
  /** The same around one message of the user. */
  frame?: ChatFrame;
}

const MODEL_FILES = ['config.json', 'tokenizer.json', 'model.safetensors'];

/**
 * Reads a checkpoint and puts the weights on the backend.
 *
 * @throws Failure if the files cannot be fetched, are no checkpoint that the runner can compute, or `signal` ended it.
 */
export async function loadReader(
  source: ModelSource,
  onProgress: (progress: LoadProgress) => void = () => {},
  signal?: AbortSignal,
): Promise<Reader> {
  try {
    return await read(source, onProgress, signal);
  } catch (error) {
    if (signal?.aborted) throw new Failure('AbortError', 'loading the model was cancelled', {cause: error});
    throw error;
  }
}

async function read(
  source: ModelSource,
  onProgress: (progress: LoadProgress) => void,
  signal?: AbortSignal,
): Promise<Reader> {
  const files = await filesOf(source, onProgress, signal);
  signal?.throwIfAborted();
  const {checkpoint, tokenizer} = await failAs('CheckpointError', async () => {
    const checkpoint = await openCheckpoint(files);
    return {checkpoint, tokenizer: createTokenizer(checkpoint.tokenizer)};
  });
  const {headDim} = checkpoint.config;
  const maxPositions = Math.min(checkpoint.config.maxPositions, mostPositions(headDim) - MOST_WRITTEN_TOKENS);
  // A prompt may fill the context that the model was trained for, and still needs its answer.
  const runLength = Math.min(maxPositions, LONGEST_PROMPT) + MOST_WRITTEN_TOKENS;
  // A chat stays within it, answers included.
  const limits = {model: maxPositions, device: longestRead(checkpoint.config), page: LONGEST_CONTEXT};
  const contextLength = Math.min(...Object.values(limits));
  const contextLimit = (['model', 'device', 'page'] as const).find((limit) => limits[limit] === contextLength)!;
  const before = tf.memory().numBytes;
  const model = await failAs('CheckpointError', () =>
    LlamaModel.load(checkpoint, {
      maxLength: Math.max(runLength, contextLength),
      onProgress: (done, total) => {
        signal?.throwIfAborted();
        onProgress({step: 'upload', done, total});
      },
    }),
  );
  const {chat} = checkpoint;
  const frame = chat && tryFrame(tokenizer, chat);
  const info: ModelInfo = {
    ...describe(checkpoint),
    ...{maxLength: runLength - MOST_WRITTEN_TOKENS, contextLength, contextLimit, isChat: frame !== undefined},
    ...{weightBytes: tf.memory().numBytes - before, cacheBytesPerToken: model.cacheBytesPerToken},
  };
  return {model, tokenizer, info, chat, frame, identity: await identityOf(source)};
}

/** Most tokens that are read at once: their queries and keys, or hidden states, are one tensor. */
function longestRead({hiddenSize, heads, keyValueHeads, headDim}: Checkpoint['config']): number {
  return Math.floor(largestTensor().bytes / 4 / Math.max(hiddenSize, (heads + keyValueHeads) * headDim));
}

/** A model whose form of a chat cannot be written is read as one without: its texts are continued. */
function tryFrame(tokenizer: Tokenizer, chat: ChatForm): ChatFrame | undefined {
  try {
    return chatFrame(tokenizer, chat);
  } catch (error) {
    console.warn((error as Error).message);
    return undefined;
  }
}

function describe({config, weights}: Checkpoint) {
  const {architecture, layers, heads, keyValueHeads, headDim} = config;
  const sizes = weights.names().map((name) => weights.shape(name).reduce((product, size) => product * size, 1));
  const parameters = sizes.reduce((sum, size) => sum + size, 0);
  return {architecture, parameters, layers, heads, keyValueHeads, headDim};
}

async function filesOf(
  source: ModelSource,
  onProgress: (progress: LoadProgress) => void,
  signal?: AbortSignal,
): Promise<File[]> {
  if ('files' in source) return source.files;
  if ('url' in source) return fetchModel(source.url, onProgress);
  const {address, hub} = source;
  try {
    return await openByAddress(address, new OPFSStore(), {
      hub,
      signal,
      onProgress: (progress) => onProgress({step: 'download', ...progress}),
    });
  } catch (error) {
    // One that has a name already says that the model cannot be computed.
    if (error instanceof Failure) throw error;
    throw new Failure('DownloadError', (error as Error).message, {cause: error});
  }
}

/** Bytes so far and in all grow together until every file has answered. */
async function fetchModel(base: string, onProgress: (progress: LoadProgress) => void): Promise<File[]> {
  const sizes = new Map<string, {loaded: number; total: number}>();
  return Promise.all(
    MODEL_FILES.map((name) =>
      download(new URL(name, base), (loaded, total) => {
        sizes.set(name, {loaded, total});
        const all = [...sizes.values()];
        onProgress({
          step: 'download',
          done: all.reduce((sum, size) => sum + size.loaded, 0),
          total: all.reduce((sum, size) => sum + size.total, 0),
        });
      }),
    ),
  );
}

/** @throws Failure if the file cannot be fetched. */
export async function download(
  url: URL,
  onProgress: (loaded: number, total: number) => void = () => {},
): Promise<File> {
  return failAs('DownloadError', async () => {
    const response = await fetch(url);
    if (!response.ok || response.body === null) throw new Error(`the server answered ${response.status}`);
    // A compressed answer says how long it is on the wire, not how long it becomes: then the total is what is there.
    const compressed = response.headers.has('content-encoding');
    const announced = compressed ? 0 : Number(response.headers.get('content-length') ?? 0);
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let loaded = 0;
    const reader = response.body.getReader();
    for (let {done, value} = await reader.read(); !done; {done, value} = await reader.read()) {
      chunks.push(value!);
      loaded += value!.byteLength;
      onProgress(loaded, Math.max(announced, loaded));
    }
    return new File(chunks, url.pathname.split('/').pop()!);
  }).catch((error: Failure) => {
    throw new Failure(error.name, `${url.pathname} could not be loaded: ${error.message}`, {cause: error});
  });
}
