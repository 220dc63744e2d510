import * as tf from '@tensorflow/tfjs-core';
import {compileAhead} from '../../src/internal';
import {prefillAttention} from './attention';
import {PagedCache, type KeyValueCache} from './cache';
import type {Checkpoint} from './checkpoint';
import type {LlamaConfig} from './config';
import {Decoder, FEW_TOKENS} from './decode/decoder';
import {PackedCache} from './decode/packed_cache';
import {decodeAttention} from './decode_attention';
import {rmsNorm} from './kernels/rms_norm';
import {computed, LayerProgress} from './layer_progress';
import {type Attend, lastRow, Layers, type ModelWeights} from './layers';
import type {Prefill, PrefillRequest} from './prefill_request';
import {disposeWeights} from './prepared_weights';
import {mostPositions, rotaryTables} from './rotary';
import {checkToken, type Sampler} from './sample';
import {windowOf} from './sliding_window';
import {withSubmitBatch} from './submit_batch';
import {largestTensor} from './tensor_limit';
import {uploadWeights} from './weights';

export interface LoadOptions {
  /**
   * Longest context, prompt and continuation together, in tokens. Default: the config's `maxPositions`, past which the
   * checkpoint extrapolates. At most as many as there are rotary tables for, 131,072 with a head dim of 128: the default is no more.
   */
  maxLength?: number;
  /**
   * Most gates and ups together that the MLP computes at a time; with more it takes fewer rows at a time. Default: 2²⁵, 128 MiB in
   * float32; on WebGPU as many as a binding of the device holds, 2²⁷ at most: in pieces of 2²⁵ a prompt of 16,384 tokens took 260 ms
   * instead of 212.
   */
  maxMlpValues?: number;
  /** Told after each tensor of the checkpoint: tensors so far, and in all. */
  onProgress?: (done: number, total: number) => void;
}

/** A checkpoint on the current tfjs backend, in float32, one sequence at a time. */
export class LlamaModel {
  private recordedDecoder?: Decoder;

  private constructor(
    readonly config: LlamaConfig,
    readonly maxLength: number,
    private readonly weights: ModelWeights,
    private readonly layers: Layers,
  ) {}

  /**
   * Reads the weights of a checkpoint onto the backend; the tensors that are there already go if one fails.
   *
   * @throws Error by name if a tensor is too large for the backend.
   */
  static async load({config, weights}: Checkpoint, options: LoadOptions = {}): Promise<LlamaModel> {
    const most = mostPositions(config.headDim);
    const {maxLength = Math.min(config.maxPositions, most), maxMlpValues = mostMlpValues(), onProgress} = options;
    if (!Number.isInteger(maxLength) || maxLength < 1 || maxLength > most) {
      throw new Error(`maxLength is ${maxLength}; accepted: 1 to ${most} with a head dim of ${config.headDim}`);
    }
    const {headDim, localRopeTheta} = config;
    const rotary = {
      rotary: rotaryTables(maxLength, headDim, config.ropeTheta, config.ropeScaling),
      ...(localRopeTheta !== null && {localRotary: rotaryTables(maxLength, headDim, localRopeTheta)}),
    };
    try {
      const uploaded = await uploadWeights(config, weights, onProgress);
      const all = {...uploaded, ...rotary};
      return new LlamaModel(config, maxLength, all, new Layers(config, all, maxMlpValues));
    } catch (error) {
      tf.dispose(rotary);
      throw error;
    }
  }

  /** What keys and values of a token take while they are kept. */
  get cacheBytesPerToken(): number {
    const {layers, keyValueHeads, headDim} = this.config;
    return 2 * layers * keyValueHeads * headDim * (Decoder.takes(this.config, this.weights) ? 2 : 4);
  }

  /** Runs a prompt, or the rest of one. */
  async prefill(ids: readonly number[], request: PrefillRequest = {}): Promise<Prefill> {
    const {cache, attend, onAttention, onHidden} = request;
    const isFollowed = attend ?? onAttention ?? onHidden;
    if (!isFollowed && cache instanceof PackedCache && this.readsInSteps(ids.length, cache.length)) {
      return this.readFew(ids, cache, request);
    }
    return withSubmitBatch(ids.length, () => this.readPrompt(ids, request));
  }

  /** Tokens after a prompt, such as the next question, in recorded steps. Attention is exact. */
  private async readFew(
    ids: readonly number[],
    cache: PackedCache,
    {onLayer, signal}: PrefillRequest,
  ): Promise<Prefill> {
    let logits: tf.Tensor1D | undefined;
    try {
      signal?.throwIfAborted();
      this.checkRoom(cache.length, ids.length);
      this.checkIds(ids);
      logits = this.decoder.read(ids, cache);
      if (onLayer) {
        // They are all in one pass.
        await computed(logits);
        for (let layer = 0; layer < this.config.layers; ++layer) await onLayer(layer);
      }
      return {logits, cache};
    } catch (error) {
      logits?.dispose();
      cache.dispose();
      throw error;
    }
  }

  /** Whether so many tokens are read in recorded steps, exactly and with little work for this thread, after so many in a cache. */
  readsInSteps(tokens: number, held: number): boolean {
    return held > 0 && tokens <= FEW_TOKENS && Decoder.takes(this.config, this.weights);
  }

  /**
   * Makes ready what writes, and what reads a few tokens after those in a cache, the next question say, so that the first of them does not
   * wait for it. Does nothing where that is not recorded.
   */
  prepareToContinue(cache: KeyValueCache): void {
    if (cache instanceof PackedCache) this.decoder.prepare(cache);
  }

  /**
   * Compiles what reading a prompt and continuing it takes, so that the first one does not wait for shaders: on WebGPU, beside the work of
   * this thread. Nothing is computed, but memory for the prompt is taken and given back to the backend.
   *
   * @param tokens of the prompt. Others of a like length take the same shaders.
   */
  async compileAhead(
    tokens: number,
    request: Pick<PrefillRequest, 'attention' | 'options' | 'attend'> = {},
  ): Promise<void> {
    if (tf.getBackend() !== 'webgpu') return;
    let prompt: Promise<Prefill> | undefined;
    const compiled = compileAhead('prefill', () => (prompt = this.readPrompt(new Array(tokens).fill(0), request)));
    // Told below, unless the prompt fails first.
    compiled.catch(() => {});
    const {logits, cache} = await prompt!;
    try {
      await compiled;
      this.prepareToContinue(cache);
    } finally {
      logits.dispose();
      cache.dispose();
    }
  }

  private async readPrompt(ids: readonly number[], request: PrefillRequest): Promise<Prefill> {
    const {attention = 'composed', options, attend: replaced, onAttention, onHidden, onLayer, signal} = request;
    const {layers} = this.config;
    const {precision = 'float32'} = options ?? {};
    const cache = request.cache ?? this.newCache();
    const position = cache.length;
    // Following the layers makes the backend send each one off by itself, so it is left out where nobody asks.
    const progress = onLayer ? new LayerProgress(onLayer, signal) : undefined;
    let hidden: tf.Tensor2D | undefined;
    let logits: tf.Tensor1D | undefined;
    try {
      signal?.throwIfAborted();
      this.checkRoom(position, ids.length);
      this.layers.checkSizes(ids.length);
      hidden = this.embed(ids);
      for (let layer = 0; layer < layers; ++layer) {
        const window = windowOf(this.config, layer);
        const attend: Attend = (query, ...rows) => {
          const {key, value} = cache.extend(layer, ...rows);
          onAttention?.(layer, query, key, value);
          return (
            replaced?.(layer, query, key, value, window) ??
            prefillAttention(query, key, value, attention, {...options, window})
          );
        };
        // Where nothing but the last row's logits comes out, no other row is needed past the last attention.
        const lastRowOnly = layer === layers - 1 && onHidden === undefined;
        const pass = {position, precision, lastRowOnly};
        // What a layer makes goes as soon as it was used: of a long prompt it is most of what the device holds.
        for (const step of [
          (x: tf.Tensor2D) => this.layers.attend(layer, x, attend, pass),
          (x: tf.Tensor2D) => this.layers.addMlp(layer, x, precision),
        ]) {
          const next: tf.Tensor2D = step(hidden);
          hidden.dispose();
          hidden = next;
        }
        // Where nobody follows it, nothing is waited for: `compileAhead` rests on that.
        if (progress) await progress.queued(computed(hidden));
      }
      onHidden?.(hidden);
      logits = this.headOfLastRow(hidden);
      await progress?.finish();
      return {logits, cache};
    } catch (error) {
      logits?.dispose();
      cache.dispose();
      await progress?.drain();
      throw error;
    } finally {
      hidden?.dispose();
    }
  }

  /**
   * Runs one more token after those in the cache, which grows by it. Returns logits `[vocabSize]`. If it throws, the cache
   * is good for `dispose` alone.
   */
  decode(id: number, cache: KeyValueCache): tf.Tensor1D {
    this.checkDecode(id, cache);
    if (cache instanceof PackedCache) return this.decoder.logits(id, cache);
    const position = cache.length;
    return tf.tidy(() => {
      let hidden = this.embed([id]);
      for (let layer = 0; layer < this.config.layers; ++layer) {
        const attend: Attend = (query, key, value) =>
          decodeAttention(query, (cache as PagedCache).append(layer, key, value, windowOf(this.config, layer)));
        hidden = this.layers.attend(layer, hidden, attend, {position, precision: 'float32'});
        hidden = this.layers.addMlp(layer, hidden, 'float32');
      }
      return this.headOfLastRow(hidden);
    });
  }

  /** As {@link decode}: the id of the token after it, as the sampler chooses it. */
  async decodeNext(id: number, cache: KeyValueCache, sampler: Sampler): Promise<number> {
    if (cache instanceof PackedCache) {
      this.checkDecode(id, cache);
      return checkToken(await this.decoder.next(id, cache, sampler.choice()));
    }
    const logits = this.decode(id, cache);
    try {
      return await sampler.next(logits);
    } finally {
      logits.dispose();
    }
  }

  /** Logits `[rows, vocabSize]` of hidden states `[rows, hiddenSize]` after the last layer, for the token after each row. */
  logitsOf(hidden: tf.Tensor2D): tf.Tensor2D {
    return tf.tidy(() => {
      const x = rmsNorm(hidden, this.config.rmsNormEpsilon, {weight: this.weights.norm});
      // As it is stored: a tied head is the embedding, of which a transposed copy would double the memory.
      return this.weights.head.multiply(x);
    });
  }

  dispose(): void {
    this.recordedDecoder?.dispose();
    disposeWeights(this.weights);
  }

  /** An empty cache of the kind that this model fills here. */
  newCache(): KeyValueCache {
    return Decoder.takes(this.config, this.weights)
      ? new PackedCache(this.config, this.maxLength)
      : new PagedCache(this.config);
  }

  private get decoder(): Decoder {
    return (this.recordedDecoder ??= new Decoder({config: this.config, weights: this.weights}));
  }

  private checkDecode(id: number, cache: KeyValueCache): void {
    this.checkRoom(cache.length, 1);
    this.checkIds([id]);
  }

  private checkRoom(held: number, added: number): void {
    if (added === 0) throw new Error('prefill: got no tokens; accepted: 1 or more');
    if (held + added > this.maxLength) {
      throw new Error(`the context would be ${held + added} tokens; accepted: at most ${this.maxLength}`);
    }
  }

  private embed(ids: readonly number[]): tf.Tensor2D {
    this.checkIds(ids);
    const {embeddingScale} = this.config;
    return tf.tidy(() => {
      const rows = this.weights.embedding.rows(ids);
      return embeddingScale === 1 ? rows : tf.mul(rows, embeddingScale);
    });
  }

  private checkIds(ids: readonly number[]): void {
    const {vocabSize} = this.config;
    const unknown = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
    if (unknown !== -1) {
      throw new Error(`token id is ${ids[unknown]}; accepted: integers from 0 to ${vocabSize - 1}`);
    }
  }

  private headOfLastRow(hidden: tf.Tensor2D): tf.Tensor1D {
    return tf.tidy(() => tf.reshape(this.logitsOf(lastRow(hidden, 0)), [this.config.vocabSize]));
  }
}

const mostMlpValues = (): number =>
  tf.getBackend() === 'webgpu' ? Math.min(2 ** 27, Math.floor(largestTensor().bytes / 4)) : 2 ** 25;
