import type * as tf from '@tensorflow/tfjs-core';
import type {PrefillAttention, PrefillOptions} from './attention';
import type {KeyValueCache} from './cache';

export interface PrefillRequest {
  /** Of the tokens before these, which it takes over: it is in the result, or disposed after an error. Default: none are before. */
  cache?: KeyValueCache;
  /** Default: `'composed'`. */
  attention?: PrefillAttention;
  /** Options of `'pbs'`; `precision` is that of `'flash'`, and of the products outside attention, too. */
  options?: PrefillOptions;
  /**
   * Sees each layer's rotated query `[1, heads, rows, headDim]`, rotated key and value `[1, keyValueHeads, length,
   * headDim]`, of the tokens before too, before they are attended. They are disposed after the layer: clone and `tf.keep` to hold one.
   */
  onAttention?: (layer: number, query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => void;
  /**
   * Attends in the place of `attention`, from what `onAttention` sees to `[1, heads, rows, headDim]`.
   *
   * @param window that of the layer, as the ops have it; nothing where the layer has none.
   */
  attend?: (
    layer: number,
    query: tf.Tensor4D,
    key: tf.Tensor4D,
    value: tf.Tensor4D,
    window: number | undefined,
  ) => tf.Tensor4D;
  /**
   * Sees `[rows, hiddenSize]` after the last layer, for `LlamaModel.logitsOf`; disposed afterwards. Without it, the
   * last layer computes the last row alone.
   */
  onHidden?: (hidden: tf.Tensor2D) => void;
  /** Told, and awaited, when the backend has finished a layer, in their order. The next layers are queued meanwhile. */
  onLayer?: (layer: number) => void | Promise<void>;
  /**
   * Ends the work after the layer that is computed when it is aborted, if layers are followed by `onLayer`, otherwise
   * before the next token; the call rejects with the signal's reason.
   */
  signal?: AbortSignal;
}

/** What a prefill leaves; the caller disposes both. */
export interface Prefill {
  /** `[vocabSize]`, for the token after the prompt. */
  logits: tf.Tensor1D;
  cache: KeyValueCache;
}
