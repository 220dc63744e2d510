import * as tf from '@tensorflow/tfjs-core';
import {composedAttention, prefillAttention, type PrefillAttention, type PrefillOptions} from './attention';
import {KeyValueCache} from './cache';
import type {Checkpoint} from './checkpoint';
import type {LlamaConfig} from './config';
import {rotaryTables, rotate, type RotaryTables} from './rotary';
import {uploadWeights, type DecoderWeights, type Projection} from './weights';

type Weights = DecoderWeights<tf.Tensor> & {rotary: RotaryTables};

type Attend = (query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => tf.Tensor4D;

export interface PrefillRequest {
  /** Default: `'composed'`. */
  attention?: PrefillAttention;
  /** Options of `'pbs'`. */
  options?: PrefillOptions;
  /**
   * Sees each layer's rotated query `[1, heads, length, headDim]`, rotated key and value `[1, keyValueHeads, length,
   * headDim]` before they are attended. They are disposed after the layer: clone and `tf.keep` to hold one.
   */
  onAttention?: (layer: number, query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => void;
  /** Attends in the place of `attention`, from what `onAttention` sees to `[1, heads, length, headDim]`. */
  attend?: (layer: number, query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => tf.Tensor4D;
  /** Sees `[length, hiddenSize]` after the last layer, for {@link LlamaModel.logitsOf}; disposed afterwards. */
  onHidden?: (hidden: tf.Tensor2D) => void;
  /** Awaited after each layer: a place to let the page breathe where a backend computes on this thread. */
  onLayer?: (layer: number) => void | Promise<void>;
}

/** What a prefill leaves; the caller disposes both. */
export interface Prefill {
  /** `[vocabSize]`, for the token after the prompt. */
  logits: tf.Tensor1D;
  cache: KeyValueCache;
}

export interface LoadOptions {
  /**
   * Longest context, prompt and continuation together, in tokens. Default: the config's `maxPositions`, past which the
   * checkpoint extrapolates.
   */
  maxLength?: number;
  /** Told after each tensor of the checkpoint: tensors so far, and in all. */
  onProgress?: (done: number, total: number) => void;
}

/** A Llama or Qwen2 checkpoint on the current tfjs backend, in float32, one sequence at a time. */
export class LlamaModel {
  private constructor(
    readonly config: LlamaConfig,
    readonly maxLength: number,
    private readonly weights: Weights,
  ) {}

  /** Reads the weights of a checkpoint onto the backend; the tensors that are there already go if one fails. */
  static async load({config, weights}: Checkpoint, options: LoadOptions = {}): Promise<LlamaModel> {
    const {maxLength = config.maxPositions, onProgress} = options;
    const rotary = rotaryTables(maxLength, config.headDim, config.ropeTheta, config.ropeScaling);
    try {
      return new LlamaModel(config, maxLength, {...(await uploadWeights(config, weights, onProgress)), rotary});
    } catch (error) {
      tf.dispose(rotary);
      throw error;
    }
  }

  /** Runs a prompt. */
  async prefill(ids: readonly number[], request: PrefillRequest = {}): Promise<Prefill> {
    const {attention = 'composed', options, attend, onAttention, onHidden, onLayer} = request;
    const {layers} = this.config;
    this.checkRoom(0, ids.length);
    const cache = new KeyValueCache();
    let hidden = this.embed(ids);
    try {
      for (let layer = 0; layer < layers; ++layer) {
        const next = this.runLayer(layer, hidden, 0, (query, key, value) => {
          onAttention?.(layer, query, key, value);
          cache.append(layer, key, value);
          return attend?.(layer, query, key, value) ?? prefillAttention(query, key, value, attention, options);
        });
        hidden.dispose();
        hidden = next;
        await onLayer?.(layer);
      }
      onHidden?.(hidden);
      return {logits: this.headOfLastRow(hidden), cache};
    } catch (error) {
      cache.dispose();
      throw error;
    } finally {
      hidden.dispose();
    }
  }

  /** Runs one more token after those in the cache, which grows by it. Returns logits `[vocabSize]`. */
  decode(id: number, cache: KeyValueCache): tf.Tensor1D {
    const position = cache.length;
    this.checkRoom(position, 1);
    return tf.tidy(() => {
      let hidden = this.embed([id]);
      for (let layer = 0; layer < this.config.layers; ++layer) {
        hidden = this.runLayer(layer, hidden, position, (query, key, value) => {
          const all = cache.append(layer, key, value);
          return composedAttention(query, all.key, all.value);
        });
      }
      return this.headOfLastRow(hidden);
    });
  }

  /** Logits `[rows, vocabSize]` of hidden states `[rows, hiddenSize]` after the last layer, for the token after each row. */
  logitsOf(hidden: tf.Tensor2D): tf.Tensor2D {
    return tf.tidy(() => project(this.rmsNorm(hidden, this.weights.norm), this.weights.head));
  }

  dispose(): void {
    tf.dispose(this.weights);
  }

  private checkRoom(held: number, added: number): void {
    if (added === 0) throw new Error('prefill: got no tokens; accepted: 1 or more');
    if (held + added > this.maxLength) {
      throw new Error(`the context would be ${held + added} tokens; accepted: at most ${this.maxLength}`);
    }
  }

  private embed(ids: readonly number[]): tf.Tensor2D {
    const {vocabSize} = this.config;
    const unknown = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (unknown !== undefined) {
      throw new Error(`token id is ${unknown}; accepted: integers from 0 to ${vocabSize - 1}`);
    }
    return tf.tidy(() => tf.gather(this.weights.embedding, tf.tensor1d(ids as number[], 'int32')) as tf.Tensor2D);
  }

  /** One decoder layer over rows that start at `position`: `[length, hiddenSize]` in and out. */
  private runLayer(index: number, hidden: tf.Tensor2D, position: number, attend: Attend): tf.Tensor2D {
    return tf.tidy(() => {
      const {heads, keyValueHeads, headDim} = this.config;
      const {rotary} = this.weights;
      const layer = this.weights.layers[index];

      const x = this.rmsNorm(hidden, layer.attentionNorm);
      const query = rotate(toHeads(project(x, layer.query), heads), rotary, position);
      const key = rotate(toHeads(project(x, layer.key), keyValueHeads), rotary, position);
      const value = toHeads(project(x, layer.value), keyValueHeads);
      const attended = tf.transpose(attend(query, key, value), [0, 2, 1, 3]);
      const rows = tf.reshape(attended, [hidden.shape[0], heads * headDim]) as tf.Tensor2D;
      const afterAttention = tf.add(hidden, project(rows, layer.output)) as tf.Tensor2D;

      const y = this.rmsNorm(afterAttention, layer.mlpNorm);
      const gate = project(y, layer.gate);
      const swiGlu = tf.mul(tf.mul(gate, tf.sigmoid(gate)), project(y, layer.up)) as tf.Tensor2D;
      return tf.add(afterAttention, project(swiGlu, layer.down)) as tf.Tensor2D;
    });
  }

  private rmsNorm(x: tf.Tensor2D, weight: tf.Tensor): tf.Tensor2D {
    return tf.tidy(() => {
      const meanSquare = tf.mean(tf.square(x), -1, true);
      return tf.mul(tf.mul(x, tf.rsqrt(tf.add(meanSquare, this.config.rmsNormEpsilon))), weight);
    });
  }

  private headOfLastRow(hidden: tf.Tensor2D): tf.Tensor1D {
    return tf.tidy(() => {
      const [length, hiddenSize] = hidden.shape;
      const last = tf.slice(hidden, [length - 1, 0], [1, hiddenSize]);
      return tf.reshape(this.logitsOf(last), [this.config.vocabSize]);
    });
  }
}

/** `[length, inputs]` by `[outputs, inputs]` gives `[length, outputs]`. */
function project(x: tf.Tensor2D, {weight, bias}: Projection<tf.Tensor>): tf.Tensor2D {
  return tf.tidy(() => {
    const product = tf.matMul<tf.Tensor2D>(x, weight, false, true);
    return bias === undefined ? product : tf.add(product, bias);
  });
}

/** `[length, heads * headDim]` to `[1, heads, length, headDim]`. */
function toHeads(x: tf.Tensor2D, heads: number): tf.Tensor4D {
  const [length, width] = x.shape;
  return tf.tidy(() => tf.transpose(tf.reshape(x, [1, length, heads, width / heads]), [0, 2, 1, 3]));
}
