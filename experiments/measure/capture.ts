import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import type {Subject} from './model';

/**
 * Calls `use` with query, key and value of some layers while the model reads tokens with exact attention, and frees them
 * when it is done or has failed.
 */
export async function withCaptured(
  subject: Subject,
  ids: readonly number[],
  layers: readonly number[],
  use: (captured: readonly Inputs[]) => Promise<void>,
): Promise<void> {
  const captured: Inputs[] = [];
  const hold = (x: tf.Tensor4D) => tf.keep(tf.clone(x));
  try {
    const {logits, cache} = await subject.model.prefill(ids, {
      attention: 'flash',
      onAttention: (layer, query, key, value) => {
        if (layers.includes(layer)) captured.push({query: hold(query), key: hold(key), value: hold(value)});
      },
    });
    logits.dispose();
    cache.dispose();
    await use(captured);
  } finally {
    captured.forEach(({query, key, value}) => tf.dispose([query, key, value]));
  }
}
