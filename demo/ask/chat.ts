import * as tf from '@tensorflow/tfjs-core';
import {chatTemplate, type ChatMessage} from '../../runner/chat_template';
import {generate} from '../../runner/llama/generate';
import {plainText} from '../../runner/plain_text';
import {decode, encode} from '../../runner/tokenizer';
import {chooseBackend} from '../backend';
import type {BackendName} from '../backend_names';
import {readingPrecision} from '../engine/chat';
import {loadReader, type Reader} from '../engine/load';

/** What the command passes into the browser, beside the files of the model. */
export interface ChatRequest {
  /** Default: the fastest that works. */
  backend?: BackendName;
  prompt: string;
  /** What the model is told before. Default: what its template says. */
  system?: string;
  /** A text that stands before the prompt. */
  document?: string;
  maxTokens: number;
  attention: 'exact' | 'pbs';
  /** 0: the most likely token. */
  temperature: number;
}

/** What the command prints. */
export interface ChatResult {
  text: string;
  tokens: number[];
  promptTokens: number;
  firstTokenMs: number;
  tokensPerSecond: number;
  backend: BackendName;
  attention: 'exact' | 'pbs';
  /** On the backend when the answer was there: weights, cache, and what is pooled. */
  gpuBytes: number;
  errors: string[];
}

/** Answers a prompt in the model's own form of a chat; as it is where the model has none. Steps go to the console. */
export async function chat(files: File[], request: ChatRequest): Promise<ChatResult> {
  const machine = await chooseBackend(request.backend);
  console.info(`Backend ${machine.backend} (${machine.reason}), adapter ${machine.adapter}`);
  const reader = await loadReader({files}, ({step, done, total}) => {
    if (done === total) console.info(`${step}: ${total}`);
  });
  const {model, tokenizer, info} = reader;
  try {
    const ids = encode(tokenizer, promptText(reader, request));
    if (ids.length > info.maxLength) {
      throw new Error(`the prompt has ${ids.length} tokens; accepted: at most ${info.maxLength}`);
    }
    console.info(`${ids.length} tokens`);
    const {tokens, firstTokenMs, restMs} = await generate(model, ids, {
      attention: request.attention === 'exact' ? 'flash' : 'pbs',
      options: {precision: readingPrecision(machine)},
      maxTokens: Math.min(request.maxTokens, model.maxLength - ids.length),
      sampling: {temperature: request.temperature, topP: 1, seed: 0},
    });
    machine.throwIfFailed();
    const {numBytesInGPU = 0} = tf.memory() as tf.MemoryInfo & {numBytesInGPU?: number};
    return {
      text: decode(tokenizer, tokens),
      tokens,
      promptTokens: ids.length,
      firstTokenMs,
      tokensPerSecond: tokens.length > 1 ? (1000 * (tokens.length - 1)) / restMs : 0,
      backend: machine.backend,
      attention: request.attention,
      gpuBytes: numBytesInGPU,
      errors: [],
    };
  } finally {
    model.dispose();
  }
}

function promptText({chat, tokenizer}: Reader, {prompt, system, document}: ChatRequest): string {
  const content = document === undefined ? prompt : `${document}\n\n${prompt}`;
  if (chat === undefined) return content;
  const said = (role: string, text: string): ChatMessage => ({role, content: plainText(tokenizer, text)});
  const messages = [...(system ? [said('system', system)] : []), said('user', content)];
  return chatTemplate(chat.template, chat).render(messages, {addGenerationPrompt: true});
}
