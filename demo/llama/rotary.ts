import * as tf from '@tensorflow/tfjs-core';
import type {Llama3Scaling, RotaryScaling} from './rotary_config';

/** Cosines and sines of the rotary angles, each float32 `[positions, headDim / 2]`. */
export type RotaryTables = {cos: tf.Tensor2D; sin: tf.Tensor2D};

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
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let i = 0; i < half; ++i) {
    const unscaled = Math.fround(1 / Math.fround(theta ** Math.fround((2 * i) / headDim)));
    const frequency = scaleFrequency(unscaled, scaling);
    for (let position = 0; position < positions; ++position) {
      const angle = Math.fround(position * frequency);
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return {cos: tf.tensor2d(cos, [positions, half]), sin: tf.tensor2d(sin, [positions, half])};
}

function scaleFrequency(frequency: number, scaling: RotaryScaling | null): number {
  switch (scaling?.type) {
    case undefined:
      return frequency;
    case 'linear':
      return Math.fround(frequency / scaling.factor);
    case 'llama3':
      return Math.fround(llama3Frequency(frequency, scaling));
  }
}

function llama3Frequency(frequency: number, scaling: Llama3Scaling): number {
  const {factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalMaxPositions} = scaling;
  /** Full turns within the original context. */
  const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
  const unchanged = Math.min(1, Math.max(0, (turns - low) / (high - low)));
  return unchanged * frequency + ((1 - unchanged) * frequency) / factor;
}

/** Factors of {@link rotate} for consecutive positions, each `[length, headDim]`. */
export type RotaryRows = {cos: tf.Tensor2D; signedSin: tf.Tensor2D};

/** Rows `start .. start + length - 1` of the tables, in the form that `rotate` takes. */
export function rotaryRows(tables: RotaryTables, start: number, length: number): RotaryRows {
  return tf.tidy(() => {
    const half = tables.cos.shape[1];
    const cos = tf.slice(tables.cos, [start, 0], [length, half]);
    const sin = tf.slice(tables.sin, [start, 0], [length, half]);
    return {cos: tf.concat([cos, cos], 1), signedSin: tf.concat([tf.neg(sin), sin], 1)};
  });
}

/**
 * Rotates queries or keys by their positions, in Hugging Face's convention: component `i` is paired with
 * `i + headDim / 2`, not with its neighbour.
 *
 * @param x `[heads, length, headDim]`.
 * @param rows those of the positions of `x`.
 */
export function rotate(x: tf.Tensor3D, {cos, signedSin}: RotaryRows): tf.Tensor3D {
  return tf.tidy(() => {
    const [heads, length, headDim] = x.shape;
    const halves = tf.reshape(x, [heads, length, 2, headDim / 2]);
    const swapped = tf.reshape(tf.reverse(halves, 2), [heads, length, headDim]);
    return tf.add(tf.mul(x, cos), tf.mul(swapped, signedSin));
  });
}
