import * as tf from '@tensorflow/tfjs-core';
import type {Llama3Scaling, RotaryScaling} from './rotary_config';

/**
 * Cosines and sines of the rotary angles, each float32 `[positions, headDim]`: both halves of a row are of the same angles,
 * and the sines of the first half are negated, as the first half of the values takes them.
 */
export type RotaryTables = {cos: tf.Tensor2D; signedSin: tf.Tensor2D};

/** Most bytes of both tables: 131,072 positions with a head dim of 128. */
const MAX_TABLE_BYTES = 2 ** 27;

/** Most positions for which there are tables. */
export function mostPositions(headDim: number): number {
  return Math.floor(MAX_TABLE_BYTES / (2 * 4 * headDim));
}

/**
 * Tables for positions `0 .. positions - 1`.
 *
 * Frequencies and angles are rounded to float32 where transformers rounds them: at position 16,384 the
 * rounding of the angle reaches 1e-3, and checkpoints were trained with it.
 */
export function rotaryTables(
  positions: number,
  headDim: number,
  theta: number,
  scaling: RotaryScaling | null = null,
): RotaryTables {
  const half = headDim / 2;
  const cos = new Float32Array(positions * headDim);
  const signedSin = new Float32Array(positions * headDim);
  for (let i = 0; i < half; ++i) {
    const unscaled = Math.fround(1 / Math.fround(theta ** Math.fround((2 * i) / headDim)));
    const frequency = scaleFrequency(unscaled, scaling, i);
    for (let position = 0; position < positions; ++position) {
      const angle = Math.fround(position * frequency);
      const at = position * headDim + i;
      cos[at] = cos[at + half] = Math.cos(angle);
      signedSin[at + half] = Math.sin(angle);
      signedSin[at] = -signedSin[at + half];
    }
  }
  const shape: [number, number] = [positions, headDim];
  return {cos: tf.tensor2d(cos, shape), signedSin: tf.tensor2d(signedSin, shape)};
}

/** @param i which of the frequencies. */
function scaleFrequency(frequency: number, scaling: RotaryScaling | null, i: number): number {
  switch (scaling?.type) {
    case undefined:
      return frequency;
    case 'linear':
      return Math.fround(frequency / scaling.factor);
    case 'llama3':
      return Math.fround(llama3Frequency(frequency, scaling));
    case 'factors':
      return Math.fround(frequency / scaling.factors[i]);
  }
}

function llama3Frequency(frequency: number, scaling: Llama3Scaling): number {
  const {factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions} = scaling;
  /** Full turns within the original context. */
  const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
  const unchanged = Math.min(1, Math.max(0, (turns - low) / (high - low)));
  return unchanged * frequency + ((1 - unchanged) * frequency) / factor;
}
