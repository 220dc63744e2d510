import type {Context} from './context';
import {nextTask} from './layer_progress';
import type {LlamaModel} from './model';
import type {PrefillRequest} from './prefill_request';
import {GREEDY, Sampler, type Sampling} from './sample';

export interface GenerateRequest extends Omit<PrefillRequest, 'cache'> {
  /** Most tokens to add, 1 or more. */
  maxTokens: number;
  /**
   * What was read and written before, by the same model: of the prompt only what differs from it is read. Takes what is read and written
   * now. Default: nothing was.
   */
  context?: Context;
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
  /** Tokens of the prompt that the context had read before. */
  reusedTokens: number;
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
  const {maxTokens, sampling = GREEDY, onToken, stop, context, ...prefillRequest} = request;
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new Error(`maxTokens is ${maxTokens}; accepted: a positive integer`);
  }
  const {signal} = prefillRequest;
  const sampler = new Sampler(sampling);
  const begin = performance.now();
  const held = context?.take(prompt);
  const reusedTokens = held?.length ?? 0;
  const {logits, cache} = await model.prefill(prompt.slice(reusedTokens), {...prefillRequest, cache: held});
  const tokens: number[] = [];
  let isWhole = false;
  try {
    let token = await sampler.next(logits);
    const first = performance.now();
    while (!model.config.endTokens.includes(token)) {
      tokens.push(token);
      onToken?.(tokens);
      if (tokens.length >= maxTokens || stop?.(tokens)) break;
      if (signal || onToken) await nextTask();
      signal?.throwIfAborted();
      token = await model.decodeNext(token, cache, sampler);
    }
    isWhole = true;
    return {tokens, reusedTokens, firstTokenMs: first - begin, restMs: performance.now() - first};
  } catch (error) {
    // What was read stays good where the continuation was stopped.
    isWhole = signal !== undefined && signal.aborted && error === signal.reason;
    throw error;
  } finally {
    logits.dispose();
    if (context && isWhole) context.give(cache, [...prompt, ...tokens]);
    else cache.dispose();
  }
}
