import {tensor2d, tidy, train as optimizers} from '@tensorflow/tfjs-core';
import type {Attention, Batch, ModelShape} from './model';
import {CharacterModel} from './model';

export interface Training {
  /** Layers, heads, and the length of the examples. */
  shape: Omit<ModelShape, 'vocabulary'>;
  batch: number;
  steps: number;
  learningRate: number;
  /** Of the weights, and of which pieces of the text are read in which order. */
  seed: number;
}

/** Trains a model on a text with Adam; gives the loss of each step, in nats a character. */
export async function train(
  text: string,
  attention: Attention,
  {shape, batch, steps, learningRate, seed}: Training,
  onStep?: (step: number, loss: number) => void,
): Promise<number[]> {
  const alphabet = [...new Set(text)].sort();
  const characters = Int32Array.from(text, (character) => alphabet.indexOf(character));
  const model = new CharacterModel({...shape, vocabulary: alphabet.length}, attention, seed);
  const optimizer = optimizers.adam(learningRate);
  const random = uniform(seed);
  const losses: number[] = [];
  for (let step = 0; step < steps; ++step) {
    const starts = Array.from({length: batch}, () => Math.floor(random() * (characters.length - shape.length)));
    const loss = tidy(() => optimizer.minimize(() => model.loss(read(starts)), true, model.variables)!);
    losses.push((await loss.data())[0]);
    loss.dispose();
    onStep?.(step, losses[step]);
  }
  model.dispose();
  optimizer.dispose();
  return losses;

  function read(starts: number[]): Batch {
    const piece = (shift: number) =>
      tensor2d(
        Int32Array.from(
          starts.flatMap((start) => [...characters.subarray(start + shift, start + shift + shape.length)]),
        ),
        [starts.length, shape.length],
      );
    return {characters: piece(0), next: piece(1)};
  }
}

/** mulberry32: numbers from 0 to 1, the same for the same seed. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
