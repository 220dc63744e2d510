import * as tf from '@tensorflow/tfjs-core';
import {randomNumbers} from '../random_numbers';
import {chooseToken, hasChooseToken, type Choice} from './kernels/choose_token';

/** How the next token is chosen from the logits. */
export interface Sampling {
  /** Logits are divided by it; 0 takes the most likely token (greedy). */
  temperature: number;
  /** Only the most likely tokens whose probabilities reach this sum are drawn from, 0 (exclusive) to 1. */
  topP: number;
  /** Decides what is drawn: the same seed draws the same from the same logits. */
  seed: number;
}

export const GREEDY: Sampling = {temperature: 0, topP: 1, seed: 0};

/** Chooses the tokens of one continuation, one after the other. */
export class Sampler {
  private readonly random: () => number;

  /** @throws Error that names the field, what came and what is accepted. */
  constructor(private readonly sampling: Sampling) {
    const {temperature, topP, seed} = sampling;
    if (!(temperature >= 0 && temperature < Infinity)) {
      throw new Error(`temperature is ${temperature}; accepted: 0 or a positive number`);
    }
    if (!(topP > 0 && topP <= 1)) throw new Error(`topP is ${topP}; accepted: a number above 0, at most 1`);
    if (!Number.isSafeInteger(seed)) throw new Error(`seed is ${seed}; accepted: an integer`);
    this.random = randomNumbers(seed);
  }

  /**
   * The next token's id from logits `[vocabSize]`. On WebGPU nothing but the id is read back, on other backends nothing but it where the
   * choice is greedy.
   *
   * @throws Error if the logits are not finite.
   */
  async next(logits: tf.Tensor1D): Promise<number> {
    const {temperature, topP} = this.sampling;
    // Not dataSync: it can return zeros on a software WebGPU adapter.
    if (temperature > 0 && !hasChooseToken()) {
      return drawToken((await logits.data()) as Float32Array, temperature, topP, this.random());
    }
    const index = hasChooseToken() ? chooseToken(logits, this.choice()) : likeliest(logits);
    try {
      return checkToken((await index.data())[0]);
    } finally {
      index.dispose();
    }
  }

  /** What the backend is told to choose one token by. */
  choice(): Choice {
    const {temperature, topP} = this.sampling;
    return temperature === 0
      ? {inverseTemperature: 0, topP: 1, seed: 0}
      : {inverseTemperature: Math.LOG2E / temperature, topP, seed: Math.floor(this.random() * 2 ** 32)};
  }
}

/** The most likely token, or -1 where a logit is NaN or the largest is not finite, as `chooseToken` has it. */
function likeliest(logits: tf.Tensor1D): tf.Tensor {
  return tf.tidy(() => {
    const largest = tf.max(logits);
    const isFinite = tf.logicalAnd(tf.isFinite(largest), tf.logicalNot(tf.any(tf.isNaN(logits))));
    return tf.where(isFinite, tf.argMax(logits), tf.scalar(-1, 'int32'));
  });
}

/** @throws Error if the backend has found logits that are not finite. */
export function checkToken(id: number): number {
  if (id < 0) throw new Error('logits are not finite; accepted: finite numbers');
  return id;
}

/**
 * Draws a token by nucleus sampling (Holtzman et al., arXiv 1904.09751): among the most likely tokens whose
 * probabilities reach `topP`, by their probabilities. Of equally likely ones, those with the lower id come first.
 *
 * @param at a number in [0, 1) that decides.
 */
export function drawToken(logits: Float32Array, temperature: number, topP: number, at: number): number {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(largest)) throw new Error(`logits reach ${largest}; accepted: finite numbers`);
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - largest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const nucleus = topP === 1 ? [...weights.keys()] : findNucleus(weights, topP * total, total);
  let left = at * nucleus.reduce((sum, token) => sum + weights[token], 0);
  let chosen = nucleus[0];
  for (const token of nucleus) {
    if (weights[token] === 0) continue;
    // Where rounding leaves something over, the last one stays chosen.
    chosen = token;
    left -= weights[token];
    if (left < 0) break;
  }
  return chosen;
}

/** Tokens by falling weight until their weights reach `wanted`. */
function findNucleus(weights: Float64Array, wanted: number, total: number): number[] {
  // All tokens below this together cannot make up the rest, so that none of them is needed: few are left to sort.
  const least = (total - wanted) / weights.length;
  const likely = [...weights.keys()].filter((token) => weights[token] >= least);
  likely.sort((a, b) => weights[b] - weights[a] || a - b);
  let sum = 0;
  const end = likely.findIndex((token) => (sum += weights[token]) >= wanted);
  return end === -1 ? likely : likely.slice(0, end + 1);
}
