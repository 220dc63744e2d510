import * as tf from '@tensorflow/tfjs-core';

/** Rotated keys and values of every layer, each `[1, keyValueHeads, length, headDim]`. */
export class KeyValueCache {
  private readonly layers: Array<{key: tf.Tensor4D; value: tf.Tensor4D}> = [];

  /** Positions held, counted after the last layer has been given its row. */
  get length(): number {
    return this.layers.length === 0 ? 0 : this.layers[this.layers.length - 1].key.shape[2];
  }

  /**
   * Adds rows to one layer and returns all of that layer's keys and values. The cache owns what it returns,
   * also when called inside `tf.tidy`.
   */
  append(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): {key: tf.Tensor4D; value: tf.Tensor4D} {
    const held = this.layers[layer];
    const entry =
      held === undefined
        ? {key: tf.keep(tf.clone(key)), value: tf.keep(tf.clone(value))}
        : {key: tf.keep(tf.concat([held.key, key], 2)), value: tf.keep(tf.concat([held.value, value], 2))};
    this.layers[layer] = entry;
    tf.dispose(held);
    return entry;
  }

  dispose(): void {
    tf.dispose(this.layers);
    this.layers.length = 0;
  }
}
