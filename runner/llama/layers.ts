import * as tf from '@tensorflow/tfjs-core';
import type {LlamaConfig} from './config';
import {rmsNorm} from './kernels/rms_norm';
import {rotaryEmbedding} from './kernels/rotary_embedding';
import type {PreparedLayer, PreparedWeights} from './prepared_weights';
import {
  gatedScratch,
  joinHeadsFor,
  normaliseFor,
  projectAndAdd,
  projectEach,
  projectGated,
  type Precision,
} from './projections';
import type {RotaryTables} from './rotary';
import {windowOf} from './sliding_window';
import {checkTensorSizes} from './tensor_limit';

/** Of all layers, and what is around them. */
export type ModelWeights = PreparedWeights & {
  rotary: RotaryTables;
  /** Of layers with a window, where these have their own. */
  localRotary?: RotaryTables;
};

/** The tables of a layer. */
export function rotaryOf({rotary, localRotary}: ModelWeights, config: LlamaConfig, layer: number): RotaryTables {
  return localRotary && windowOf(config, layer) !== undefined ? localRotary : rotary;
}

/** Attends from rotated query `[1, heads, rows, headDim]`, key and value `[1, keyValueHeads, rows, headDim]` to what the query's shape is. */
export type Attend = (query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => tf.Tensor4D;

/** How a layer runs. */
export interface Pass {
  /** That of the first row. */
  position: number;
  precision: Precision;
  /** Whether only the last row is wanted, as `[1, hiddenSize]`. Default: all are. */
  lastRowOnly?: boolean;
}

/** The decoder layers of a model, one half at a time. */
export class Layers {
  /** @param maxMlpValues see `LoadOptions`. */
  constructor(
    private readonly config: LlamaConfig,
    private readonly weights: ModelWeights,
    private readonly maxMlpValues: number,
  ) {}

  /** Throws if a tensor of a prefill outside attention would be too large for the backend. */
  checkSizes(length: number): void {
    const {hiddenSize, intermediateSize, heads, keyValueHeads, headDim} = this.config;
    checkTensorSizes([
      ['hidden states', [length, hiddenSize]],
      ['queries and keys', [heads + keyValueHeads, length, headDim]],
      ['inner values of the MLP', [2, this.mlpRows(length), intermediateSize]],
    ]);
  }

  /** `x + attention(norm(x))` of a decoder layer, `[length, hiddenSize]`. */
  attend(
    index: number,
    hidden: tf.Tensor2D,
    attend: Attend,
    {position, precision, lastRowOnly = false}: Pass,
  ): tf.Tensor2D {
    return tf.tidy(() => {
      const layer = this.weights.layers[index];
      const rows = tf.tidy(() => {
        const attended = attend(...this.projectToHeads(hidden, index, {position, precision}));
        return joinHeadsFor(layer.output, lastRowOnly ? lastRow(attended, 2) : attended, precision);
      });
      const residual = lastRowOnly ? lastRow(hidden, 0) : hidden;
      return projectAndAdd(rows, layer.output, residual, this.normBy(layer.attentionPostNorm));
    });
  }

  /** Rotated query `[1, heads, length, headDim]`, rotated key and value `[1, keyValueHeads, length, headDim]`. */
  private projectToHeads(
    hidden: tf.Tensor2D,
    index: number,
    {position, precision}: Pass,
  ): [query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D] {
    const {heads, keyValueHeads, rmsNormEpsilon} = this.config;
    const layer = this.weights.layers[index];
    const x = normaliseFor([layer.queryAndKey, layer.value], hidden, rmsNormEpsilon, precision);
    const byHead = (rows: tf.Tensor3D): tf.Tensor4D => tf.reshape(rows, [1, ...rows.shape]);
    const joined = tf.tidy(() => this.normaliseHeads(projectEach(x, layer.queryAndKey), layer));
    const tables = rotaryOf(this.weights, this.config, index);
    const [query, key] = rotaryEmbedding(joined, tables, position, [heads, keyValueHeads]);
    return [byHead(query), byHead(key), byHead(projectEach(x, layer.value))];
  }

  /** `x + mlp(norm(x))` of a decoder layer, for as many rows at a time as the scratch allows. */
  addMlp(index: number, x: tf.Tensor2D, precision: Precision): tf.Tensor2D {
    const {gateAndUp, down, mlpPostNorm} = this.weights.layers[index];
    const [length, hiddenSize] = x.shape;
    const {intermediateSize, rmsNormEpsilon, activation} = this.config;
    const ofRows = (rows: tf.Tensor2D) =>
      tf.tidy(() => {
        const gated = tf.tidy(() =>
          projectGated(normaliseFor([gateAndUp, down], rows, rmsNormEpsilon, precision), gateAndUp, activation),
        );
        return projectAndAdd(gated, down, rows, this.normBy(mlpPostNorm));
      });
    // Equal pieces, whose buffers serve again.
    const scratch = gatedScratch([gateAndUp, down], length, intermediateSize, precision);
    const rowsAtOnce = Math.ceil(length / Math.ceil(length / this.mlpRows(length, scratch)));
    if (rowsAtOnce >= length) return ofRows(x);
    return tf.tidy(() => {
      const chunks: tf.Tensor2D[] = [];
      for (let start = 0; start < length; start += rowsAtOnce) {
        const rows = Math.min(rowsAtOnce, length - start);
        chunks.push(tf.tidy(() => ofRows(tf.slice(x, [start, 0], [rows, hiddenSize]))));
      }
      return tf.concat(chunks);
    });
  }

  private normBy(weight: tf.Tensor | undefined) {
    return weight && {weight, epsilon: this.config.rmsNormEpsilon};
  }

  /** @param scratch words of a row in the largest scratch tensor. */
  private mlpRows(length: number, scratch = 2 * this.config.intermediateSize): number {
    return Math.min(length, Math.max(1, Math.floor(this.maxMlpValues / scratch)));
  }

  /** RMS norm of each row of each head, `[heads, length, headDim]`, with its weight; nothing where there is none. */
  private normaliseHeads(x: tf.Tensor3D, {queryAndKeyNorm}: PreparedLayer): tf.Tensor3D {
    if (queryAndKeyNorm === undefined) return x;
    return tf.tidy(() => {
      const rows: tf.Tensor2D = tf.reshape(x, [-1, this.config.headDim]);
      return tf.mul(tf.reshape(rmsNorm(rows, this.config.rmsNormEpsilon), x.shape), queryAndKeyNorm);
    });
  }
}

/** Of its length or its rows, the last one alone. */
export function lastRow<T extends tf.Tensor>(x: T, axis: number): T {
  if (x.shape[axis] === 1) return tf.clone(x);
  const begin = x.shape.map((size, i) => (i === axis ? size - 1 : 0));
  const size = x.shape.map((size, i) => (i === axis ? 1 : size));
  return tf.slice(x, begin, size);
}
