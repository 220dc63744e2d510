import * as tf from '@tensorflow/tfjs-core';
import {flashAttention, pbsAttention, type PBSAttentionOptions} from '../../src/index';

/** How the prefill attends: plain tfjs ops, the library's exact kernel, or permuted block-sparse attention. */
export type PrefillAttention = 'composed' | 'flash' | 'pbs';

/** The block-sparse options that make sense in a causal decoder; the model says the window of each layer. */
export type PrefillOptions = Omit<PBSAttentionOptions, 'causal' | 'scale' | 'auto' | 'window'>;

/**
 * Most scores held at once by the composed attention. 64 MiB stays below the smallest storage binding that
 * WebGPU allows (128 MiB), and the rows below the 65,535 past which tfjs's WebGPU softmax is corrupt.
 */
const MAX_SCORES = 2 ** 24;
const MAX_SOFTMAX_ROWS = 65_535;

/**
 * Causal attention of a prefill: as many queries as keys.
 *
 * @param query `[batch, heads, length, headDim]`.
 * @param key `[batch, keyValueHeads, length, headDim]`.
 * @param value `[batch, keyValueHeads, length, headDim]`.
 * @returns `[batch, heads, length, headDim]`.
 */
export function prefillAttention(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  value: tf.Tensor4D,
  attention: PrefillAttention,
  options: PrefillOptions & {window?: number},
): tf.Tensor4D {
  const {precision, window} = options;
  switch (attention) {
    case 'composed':
      return composedAttention(query, key, value, window);
    case 'flash':
      return flashAttention(query, key, value, {precision, window});
    case 'pbs':
      // The demo shows what the blocks do, also at lengths at which they do not pay.
      return pbsAttention(query, key, value, {...options, auto: false});
  }
}

/**
 * Exact causal attention in plain tfjs ops, for any backend. The queries are the last rows of the keys: query row `i`
 * sees keys `0 .. keyLength - queryLength + i`, with a window the last of these alone.
 *
 * Scores are materialised for a chunk of query rows at a time.
 *
 * @param query `[batch, heads, queryLength, headDim]`.
 * @param key `[batch, keyValueHeads, keyLength, headDim]`, `keyLength >= queryLength`.
 * @param value `[batch, keyValueHeads, keyLength, headDim]`.
 * @param window keys that a row sees, its own included. Default: no limit.
 * @returns `[batch, heads, queryLength, headDim]`.
 */
export function composedAttention(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  value: tf.Tensor4D,
  window = Infinity,
): tf.Tensor4D {
  return tf.tidy(() => {
    const [batch, heads, queryLength, headDim] = query.shape;
    const keyLength = key.shape[2];
    const chunkRows = Math.min(
      Math.floor(MAX_SCORES / (batch * heads * keyLength)),
      Math.floor(MAX_SOFTMAX_ROWS / (batch * heads)),
    );
    const rowsAtOnce = Math.max(1, Math.min(queryLength, chunkRows));
    const chunks: tf.Tensor4D[] = [];
    for (let start = 0; start < queryLength; start += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, queryLength - start);
      const chunk = tf.slice(query, [0, 0, start, 0], [batch, heads, rows, headDim]);
      chunks.push(attendRows(chunk, key, value, keyLength - queryLength + start, window));
    }
    return chunks.length === 1 ? chunks[0] : tf.concat(chunks, 2);
  });
}

/** Attention of consecutive query rows, the first of which sees keys up to `firstPosition`. */
function attendRows(
  query: tf.Tensor4D,
  key: tf.Tensor4D,
  value: tf.Tensor4D,
  firstPosition: number,
  window: number,
): tf.Tensor4D {
  return tf.tidy(() => {
    const [batch, heads, rows, headDim] = query.shape;
    const [, keyValueHeads, keyLength] = key.shape;
    // The heads that share a key head are consecutive, so their rows stack into one matrix per key head
    // and keys and values need no repeating.
    const grouped = [batch * keyValueHeads, (heads / keyValueHeads) * rows] as const;
    const keys = tf.reshape(key, [batch * keyValueHeads, keyLength, headDim]);
    const values = tf.reshape(value, [batch * keyValueHeads, keyLength, headDim]);
    const queries = tf.reshape(tf.mul(query, 1 / Math.sqrt(headDim)), [...grouped, headDim]);
    const scores = tf.reshape(tf.matMul(queries, keys, false, true), [batch * heads, rows, keyLength]);
    const allSeeAll = firstPosition >= keyLength - 1 && firstPosition + rows <= window;
    const weights = tf.softmax(allSeeAll ? scores : tf.add(scores, causalBias(rows, keyLength, firstPosition, window)));
    const output = tf.matMul(tf.reshape(weights, [...grouped, keyLength]), values);
    return tf.reshape(output, [batch, heads, rows, headDim]);
  });
}

/** `[rows, keyLength]`: 0 where row `i` sees key `j`, that is `0 <= firstPosition + i - j < window`, else -1e9. */
function causalBias(rows: number, keyLength: number, firstPosition: number, window: number): tf.Tensor2D {
  const position = tf.reshape(tf.range(firstPosition, firstPosition + rows), [rows, 1]);
  const distance = tf.sub(position, tf.reshape(tf.range(0, keyLength), [1, keyLength]));
  const after = tf.less(distance, 0);
  const hidden = window > firstPosition + rows - 1 ? after : tf.logicalOr(after, tf.greaterEqual(distance, window));
  return tf.mul(tf.cast(hidden, 'float32'), -1e9);
}
