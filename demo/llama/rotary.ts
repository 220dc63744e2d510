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

/**
 * Rotates queries or keys by their positions, in Hugging Face's convention: component `i` is paired with
 * `i + headDim / 2`, not with its neighbour.
 *
 * @param x `[batch, heads, length, headDim]`.
 * @param start position of the first row.
 */
export function rotate(x: tf.Tensor4D, tables: RotaryTables, start: number): tf.Tensor4D {
  return tf.tidy(() => {
    const [, , length, headDim] = x.shape;
    const cos = tf.slice(tables.cos, [start, 0], [length, headDim / 2]);
    const sin = tf.slice(tables.sin, [start, 0], [length, headDim / 2]);
    const [first, second] = tf.split(x, 2, 3);
    return tf.concat(
      [tf.sub(tf.mul(first, cos), tf.mul(second, sin)), tf.add(tf.mul(second, cos), tf.mul(first, sin))],
      3,
    ) as tf.Tensor4D;
  });
}
