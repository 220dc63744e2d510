import * as tf from '@tensorflow/tfjs-core';
import type {LlamaModel} from '../../runner/llama/model';

/** Logits held at once: 64 MiB, of a vocabulary of 151,936 tokens 110 rows. */
const MOST_LOGITS = 2 ** 24;

/** Next-token distributions of some rows on the device, in chunks of rows. */
export interface Distributions {
  /** Logarithms of probabilities, `[chunk, vocabSize]` each. */
  chunks: tf.Tensor2D[];
  /** The most likely token of each row. */
  best: Int32Array;
}

/** What the rows come to beside exact attention. */
export interface Comparison {
  /** KL(exact ‖ sparse) of each row. */
  kl: Float32Array;
  /** Of each row's next token, in nats. */
  losses: Float32Array;
  best: Int32Array;
}

/** Distributions of exact attention. The caller disposes the chunks. */
export async function distributionsOf(model: LlamaModel, hidden: tf.Tensor2D): Promise<Distributions> {
  const {chunks, best} = tf.tidy(() => {
    const chunks = rowChunks(model, hidden.shape[0]).map(([start, count]) =>
      logProbabilities(model, hidden, start, count),
    );
    return {chunks, best: mostLikely(chunks)};
  });
  try {
    return {chunks, best: (await best.data()) as Int32Array};
  } finally {
    best.dispose();
  }
}

/** @param next the token that follows each row. */
export async function compare(
  model: LlamaModel,
  hidden: tf.Tensor2D,
  exact: Distributions,
  next: readonly number[],
): Promise<Comparison> {
  const {values, best} = tf.tidy(() => {
    const parts = rowChunks(model, hidden.shape[0]).map(([start, count], i) =>
      tf.tidy(() => {
        const sparse = logProbabilities(model, hidden, start, count);
        const of = exact.chunks[i];
        const kl = tf.sum(tf.mul(tf.exp(of), tf.sub(of, sparse)), 1);
        const places = next.slice(start, start + count).flatMap((id, row) => [row, id]);
        const losses = tf.neg(tf.gatherND(sparse, tf.tensor2d(places, [count, 2], 'int32')));
        return {values: tf.stack([kl, losses]) as tf.Tensor2D, best: tf.argMax(sparse, 1) as tf.Tensor1D};
      }),
    );
    return {
      values: tf.concat(
        parts.map((part) => part.values),
        1,
      ),
      best: tf.concat(parts.map((part) => part.best)),
    };
  });
  try {
    const [read, ids] = await Promise.all([values.data(), best.data()]);
    const rows = hidden.shape[0];
    return {
      kl: read.slice(0, rows) as Float32Array,
      losses: read.slice(rows) as Float32Array,
      best: ids as Int32Array,
    };
  } finally {
    tf.dispose([values, best]);
  }
}

function rowChunks({config}: LlamaModel, rows: number): Array<[start: number, count: number]> {
  const atOnce = Math.max(1, Math.floor(MOST_LOGITS / config.vocabSize));
  return Array.from({length: Math.ceil(rows / atOnce)}, (_, i) => [i * atOnce, Math.min(atOnce, rows - i * atOnce)]);
}

function logProbabilities(model: LlamaModel, hidden: tf.Tensor2D, start: number, count: number): tf.Tensor2D {
  return tf.tidy(() => {
    const logits = model.logitsOf(tf.slice(hidden, [start, 0], [count, hidden.shape[1]]));
    return tf.sub(logits, tf.logSumExp(logits, 1, true));
  });
}

const mostLikely = (chunks: readonly tf.Tensor2D[]) =>
  tf.concat(chunks.map((chunk) => tf.argMax(chunk, 1))) as tf.Tensor1D;
