import * as tf from '@tensorflow/tfjs-core';
import type {Inputs} from '../../bench/captured_attention';
import type {Subject} from './model';

/** Query, key and value of some layers while the model reads tokens with exact attention. The caller disposes them. */
export async function captureLayers(
  subject: Subject,
  ids: readonly number[],
  layers: readonly number[],
): Promise<Inputs[]> {
  const captured: Inputs[] = [];
  const hold = (x: tf.Tensor4D) => tf.keep(tf.clone(x));
  const {logits, cache} = await subject.model.prefill(ids, {
    attention: 'flash',
    onAttention: (layer, query, key, value) => {
      if (layers.includes(layer)) captured.push({query: hold(query), key: hold(key), value: hold(value)});
    },
  });
  logits.dispose();
  cache.dispose();
  return captured;
}

export function disposeCaptured(captured: readonly Inputs[]): void {
  captured.forEach(({query, key, value}) => tf.dispose([query, key, value]));
}
