import type * as tf from '@tensorflow/tfjs-core';
import {nextTask} from './layer_progress';
import type {LlamaModel, PrefillRequest} from './model';
import {GREEDY, Sampler, type Sampling} from './sample';

export interface GenerateRequest extends PrefillRequest {
  /** Most tokens to add, 1 or more. */
  maxTokens: number;
  /** How tokens are chosen. Default: the most likely one. */
  sampling?: Sampling;
  /** Told after each token, all tokens so far. */
  onToken?: (tokens: readonly number[]) => void;
  /** Asked after each token with all tokens so far; `true` ends the continuation. */
  stop?: (tokens: readonly number[]) => boolean;
}

export interface Generated {
  /** The continuation, without the prompt; ends before an end token of the config. */
  tokens: number[];
  /** From the call of the prefill until the id of the first token was read back, in milliseconds. */
  firstTokenMs: number;
  /** From there to the end, in milliseconds. */
  restMs: number;
}

/**
 * Continues a prompt.
 *
 * @throws what `signal` was aborted with, by default an `AbortError`, after the layer or token that is computed then.
 */
export async function generate(
  model: LlamaModel,
  prompt: readonly number[],
  request: GenerateRequest,
): Promise<Generated> {
  const {maxTokens, sampling = GREEDY, onToken, stop, ...prefillRequest} = request;
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new Error(`maxTokens is ${maxTokens}; accepted: a positive integer`);
  }
  const {signal} = prefillRequest;
  const sampler = new Sampler(sampling);
  const choose = async (logits: tf.Tensor1D) => {
    try {
      return await sampler.next(logits);
    } finally {
      logits.dispose();
    }
  };
  const begin = performance.now();
  const {logits, cache} = await model.prefill(prompt, prefillRequest);
  try {
    let token = await choose(logits);
    const first = performance.now();
    const tokens: number[] = [];
    while (!model.config.endTokens.includes(token)) {
      tokens.push(token);
      onToken?.(tokens);
      if (tokens.length >= maxTokens || stop?.(tokens)) break;
      if (signal || onToken) await nextTask();
      signal?.throwIfAborted();
      token = await choose(model.decode(token, cache));
    }
    return {tokens, firstTokenMs: first - begin, restMs: performance.now() - first};
  } finally {
    cache.dispose();
  }
}
