import * as tf from '@tensorflow/tfjs-core';
import type {LlamaModel, PrefillRequest} from './model';

export interface GenerateRequest extends PrefillRequest {
  /** Most tokens to add. */
  maxTokens: number;
  /** Asked after each token with all tokens so far; `true` ends the continuation. */
  stop?: (tokens: readonly number[]) => boolean;
}

export interface Generated {
  /** The continuation, without the prompt; ends before an end token of the config. */
  tokens: number[];
  /** From the call of the prefill until the id of the first token was read back, in milliseconds. */
  firstTokenMs: number;
}

/** Greedy continuation of a prompt. */
export async function generate(
  model: LlamaModel,
  prompt: readonly number[],
  request: GenerateRequest,
): Promise<Generated> {
  const {maxTokens, stop, ...prefillRequest} = request;
  const begin = performance.now();
  const {logits, cache} = await model.prefill(prompt, prefillRequest);
  try {
    let token = await takeMostLikely(logits);
    const firstTokenMs = performance.now() - begin;
    const tokens: number[] = [];
    while (!model.config.endTokens.includes(token)) {
      tokens.push(token);
      if (tokens.length >= maxTokens || stop?.(tokens)) break;
      token = await takeMostLikely(model.decode(token, cache));
    }
    return {tokens, firstTokenMs};
  } finally {
    cache.dispose();
  }
}

/** Index of the largest logit; disposes the logits. */
async function takeMostLikely(logits: tf.Tensor1D): Promise<number> {
  const index = tf.argMax(logits);
  logits.dispose();
  try {
    // Not dataSync: it can return zeros on a software WebGPU adapter.
    return (await index.data())[0];
  } finally {
    index.dispose();
  }
}
