import * as tf from '@tensorflow/tfjs-core';
import {hasKernel, runKernel} from './run_kernel';

/** By what a token is chosen. */
export interface Choice {
  /** Differences of logits are multiplied by it, in units of log2; 0: the most likely token is taken. */
  inverseTemperature: number;
  /** See `Sampling`. */
  topP: number;
  /** uint32; another one for each token. */
  seed: number;
}

/** Kernel: inputs `logits`, float32 `[1, vocabSize]`, and `choice`, int32 `[3]`. Output int32 `[1]`: -1 if a logit is not finite. */
export const ChooseToken = 'ChooseToken';
export type ChooseTokenInputs = Record<'logits' | 'choice', tf.TensorInfo>;

/** Whether the backend chooses tokens itself; others have no kernel for it. */
export const hasChooseToken = (): boolean => hasKernel(ChooseToken);

/** A choice as the kernel takes it: the bits of two float32, and the seed. */
export function choiceWords({inverseTemperature, topP, seed}: Choice): Int32Array {
  const words = new Int32Array(3);
  new Float32Array(words.buffer).set([inverseTemperature, topP]);
  words[2] = seed | 0;
  return words;
}

/** The id of the next token of logits `[vocabSize]`: int32 `[1]`. */
export function chooseToken(logits: tf.Tensor1D, choice: Choice): tf.Tensor1D {
  return tf.tidy(() => {
    const inputs = {logits: tf.reshape(logits, [1, -1]), choice: tf.tensor1d(choiceWords(choice), 'int32')};
    return runKernel(ChooseToken, inputs, {});
  });
}
