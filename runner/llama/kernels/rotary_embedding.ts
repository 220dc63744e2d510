import * as tf from '@tensorflow/tfjs-core';
import type {RotaryTables} from '../rotary';
import {hasKernel, runKernel} from './run_kernel';

/**
 * Kernel: inputs `x`, float32 `[heads, length, headDim]`, and `cos` and `signedSin`, float32 `[positions, headDim]`. One
 * output for each entry of `groups`, float32 `[group, length, headDim]`.
 */
export const RotaryEmbedding = 'RotaryEmbedding';
export type RotaryEmbeddingInputs = Record<'x' | 'cos' | 'signedSin', tf.TensorInfo>;
export interface RotaryEmbeddingAttrs extends tf.NamedAttrMap {
  start: number;
  groups: number[];
}

/**
 * Rotates queries and keys by their positions, in Hugging Face's convention: component `i` is paired with
 * `i + headDim / 2`, not with its neighbour.
 *
 * @param x float32 `[heads, length, headDim]`.
 * @param tables those of all positions.
 * @param start position of the first row; the others follow.
 * @param groups numbers of consecutive heads that come out as a tensor each; they add up to `heads`.
 * @returns float32 `[group, length, headDim]` for each group.
 */
export function rotaryEmbedding(
  x: tf.Tensor3D,
  tables: RotaryTables,
  start: number,
  groups: readonly number[],
): tf.Tensor3D[] {
  return hasKernel(RotaryEmbedding)
    ? runKernel(RotaryEmbedding, {x, ...tables}, {start, groups: [...groups]})
    : composedRotaryEmbedding(x, tables, start, groups);
}

/** {@link rotaryEmbedding} in tfjs's own ops, for any backend. */
export function composedRotaryEmbedding(
  x: tf.Tensor3D,
  tables: RotaryTables,
  start: number,
  groups: readonly number[],
): tf.Tensor3D[] {
  return tf.tidy(() => {
    const [heads, length, headDim] = x.shape;
    const rows = (table: tf.Tensor2D) => tf.slice(table, [start, 0], [length, headDim]);
    const halves = tf.reshape(x, [heads, length, 2, headDim / 2]);
    const swapped = tf.reshape(tf.reverse(halves, 2), [heads, length, headDim]);
    const rotated = tf.add(tf.mul(x, rows(tables.cos)), tf.mul(swapped, rows(tables.signedSin)));
    return groups.length === 1 ? [rotated] : tf.split(rotated, [...groups]);
  }) as tf.Tensor3D[];
}
