import * as tf from '@tensorflow/tfjs-core';
import type {LlamaModel} from '../../runner/llama/model';

/** Logits held at once: 64 MiB, below the smallest storage binding that WebGPU allows. */
const MOST_LOGITS = 2 ** 24;

/**
 * Next-token losses: `-log p(ids[i + 1])` in nats for every row `i` but the last.
 *
 * @param hidden `[length, hiddenSize]`, what `onHidden` of a prefill saw.
 */
export async function tokenLosses(
  model: LlamaModel,
  hidden: tf.Tensor2D,
  ids: readonly number[],
): Promise<Float32Array> {
  const rows = ids.length - 1;
  const [, hiddenSize] = hidden.shape;
  const rowsAtOnce = Math.max(1, Math.floor(MOST_LOGITS / model.config.vocabSize));
  const losses = tf.tidy(() => {
    const chunks: tf.Tensor1D[] = [];
    for (let start = 0; start < rows; start += rowsAtOnce) {
      const count = Math.min(rowsAtOnce, rows - start);
      chunks.push(
        tf.tidy(() => {
          const logits = model.logitsOf(tf.slice(hidden, [start, 0], [count, hiddenSize]));
          const next = ids.slice(start + 1, start + 1 + count);
          const places = tf.tensor2d(
            next.flatMap((id, i) => [i, id]),
            [count, 2],
            'int32',
          );
          return tf.sub(tf.logSumExp(logits, 1), tf.gatherND(logits, places)) as tf.Tensor1D;
        }),
      );
    }
    return tf.concat(chunks);
  });
  try {
    return (await losses.data()) as Float32Array;
  } finally {
    losses.dispose();
  }
}
