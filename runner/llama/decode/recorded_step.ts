import type * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {
  type AttentionProgram,
  type BoundProgram,
  bufferOf,
  CombineStatesProgram,
  guardOf,
  openEncoder,
  openPass,
} from '../../../src/internal';
import type {PackedMatrix} from '../../quantised/packed_matrix';
import {PackedProductProgram, type PackedProductOptions} from '../../quantised/webgpu/product_program';
import {UnpackRowsProgram} from '../../quantised/webgpu/unpack_program';
import type {LlamaConfig} from '../config';
import type {PreparedProjection, StoredProjection} from '../prepared_weights';
import {AttendRowsProgram, statesShape} from './attend_rows';
import {type Choice, choiceWords} from '../kernels/choose_token';
import {ChooseTokenProgram} from '../kernels/webgpu/choose_token';
import {RMSNormProgram} from '../kernels/webgpu/rms_norm';
import {type ModelWeights, rotaryOf} from '../layers';
import {windowOf} from '../sliding_window';
import {LastRowProgram} from './last_row';
import type {LayerInputs} from './layer_inputs';
import type {PackedCache} from './packed_cache';
import {StoreTokensProgram} from './store_tokens';

/** The model that a step runs; its matrices are packed. */
export interface RecordedModel {
  config: LlamaConfig;
  weights: ModelWeights;
}

/** Submits of a run: the device begins while this thread records the rest. */
const PARTS = 4;

type CachePrograms = {program: AttentionProgram<object>; output: tf.TensorInfo}[];

/**
 * A few tokens through the model, recorded once: pipelines, buffers and bind groups are made when it is constructed and used again
 * for all tokens that follow, in one pass. What changes, the tokens and where they stand, lies in buffers. The layers of a cache are bound
 * anew when they are others.
 */
export class RecordedStep {
  /** float32 `[1, vocabSize]`, of the last token that was run; the next run overwrites them. */
  readonly logits: tf.TensorInfo;
  private readonly tokens: tf.TensorInfo;
  private readonly span: tf.TensorInfo;
  private readonly choice: tf.TensorInfo;
  private readonly chosen: tf.TensorInfo;
  private chooser?: BoundProgram;
  /** In their order. Those that read or write the layers of a cache are made by `bindCache`. */
  private readonly bound: (BoundProgram | undefined)[] = [];
  private readonly ofCache: {index: number; layer: number; make(cache: tf.TensorInfo): CachePrograms}[] = [];
  private boundCache?: {cache: PackedCache; generation: number};
  private readonly scratch: tf.TensorInfo[] = [];
  private readonly readback: GPUBuffer;

  /** @param rows tokens of a run at the most. */
  constructor(
    private readonly backend: WebGPUBackend,
    private readonly model: RecordedModel,
    readonly rows: number,
  ) {
    this.readback = backend.device.createBuffer({size: 4, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});
    this.tokens = this.make([rows], 'int32');
    this.span = this.make([2], 'int32');
    this.logits = this.make([1, model.config.vocabSize]);
    this.choice = this.make([3], 'int32');
    this.chosen = this.make([1], 'int32');
    try {
      this.record();
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  private record(): void {
    const {rows} = this;
    const {hiddenSize, intermediateSize, heads, keyValueHeads, headDim, embeddingScale} = this.model.config;
    const {embedding, layers, norm, head} = this.model.weights;
    // Two, since a program cannot read what it writes: the residual stream goes from one to the other.
    const [stream, other] = [this.make([rows, hiddenSize]), this.make([rows, hiddenSize])];
    const projected = this.make([rows, (heads + 2 * keyValueHeads) * headDim]);
    const states = this.make(statesShape(this.model.config, rows));
    const attended = this.make([rows, heads * headDim]);
    const gated = this.make([rows, intermediateSize]);
    const beforeNorm = layers.some(({attentionPostNorm}) => attentionPostNorm)
      ? this.make([rows, hiddenSize])
      : undefined;

    for (const part of (embedding as PackedMatrix).parts) {
      this.add(new UnpackRowsProgram(part, this.tokens, part.firstRow, embeddingScale), stream);
    }
    layers.forEach((layer, index) => {
      this.project([layer.queryAndKey, layer.value], stream, projected);
      this.attend(index, this.inputsOf(index, projected), states, attended);
      this.projectAndAdd(layer.output, attended, other, stream, layer.attentionPostNorm, beforeNorm);
      this.projectGated(layer.gateAndUp, other, gated);
      this.projectAndAdd(layer.down, gated, stream, other, layer.mlpPostNorm, beforeNorm);
    });
    let last = stream;
    if (rows > 1) {
      last = this.make([1, hiddenSize]);
      this.add(new LastRowProgram(stream, this.span), last);
    }
    this.multiply(head as PackedMatrix, last, this.logits, {norm: this.norm(norm)});
    this.chooser = new ChooseTokenProgram(this.logits, this.choice).bind(this.backend, this.chosen);
  }

  private make(shape: number[], dtype: tf.DataType = 'float32'): tf.TensorInfo {
    const info = this.backend.makeTensorInfo(shape, dtype);
    this.scratch.push(info);
    return info;
  }

  /**
   * Sends tokens off.
   *
   * @param tokens at most `rows`.
   * @param cache with room for all of them after the rows that it holds: those are read, and the tokens' own are written.
   * @param choice if given, the token after the last one is chosen by it too: see `readChosen`.
   */
  run(tokens: readonly number[], cache: PackedCache, choice?: Choice): void {
    const {backend} = this;
    this.bindCache(cache);
    this.write(this.span, Int32Array.of(cache.length, tokens.length));
    this.write(this.tokens, Int32Array.from(tokens));
    if (choice) this.write(this.choice, choiceWords(choice));
    const part = Math.ceil(this.bound.length / PARTS);
    for (let first = 0; first < this.bound.length; first += part) {
      if (first > 0) backend.submitQueue();
      const pass = openPass(backend);
      for (const program of this.bound.slice(first, first + part)) program!.encode(pass);
      if (choice && first + part >= this.bound.length) this.chooser!.encode(pass);
      backend.endComputePassEncoder();
    }
    if (choice) openEncoder(backend).copyBufferToBuffer(this.buffer(this.chosen), 0, this.readback, 0, 4);
    backend.submitQueue();
  }

  private write(tensor: tf.TensorInfo, words: Int32Array): void {
    this.backend.queue.writeBuffer(this.buffer(tensor), 0, words as Int32Array<ArrayBuffer>);
  }

  /** The token that the last run chose. */
  async readChosen(): Promise<number> {
    await guardOf(this.backend).checked(() => this.readback.mapAsync(GPUMapMode.READ));
    const [token] = new Int32Array(this.readback.getMappedRange().slice(0));
    this.readback.unmap();
    return token;
  }

  dispose(): void {
    [...this.bound.splice(0), this.chooser].forEach((program) => this.release(program));
    this.chooser = undefined;
    this.scratch.splice(0).forEach(({dataId}) => this.backend.disposeData(dataId));
    this.readback.destroy();
  }

  private release(program?: BoundProgram): void {
    if (program) this.backend.bufferManager.releaseBuffer(program.uniforms);
  }

  private inputsOf(layer: number, projected: tf.TensorInfo): LayerInputs {
    const {config, weights} = this.model;
    const {queryAndKeyNorm} = weights.layers[layer];
    return {
      projected,
      span: this.span,
      rotary: rotaryOf(weights, config, layer),
      norm: queryAndKeyNorm && this.norm(queryAndKeyNorm),
      window: windowOf(config, layer),
      shape: config,
    };
  }

  /** Leaves the places of the programs that take a layer of a cache, or depend on what it may hold. */
  private attend(layer: number, inputs: LayerInputs, states: tf.TensorInfo, attended: tf.TensorInfo): void {
    const {rows} = this;
    const {heads, headDim} = inputs.shape;
    const make = (cache: tf.TensorInfo): CachePrograms => {
      const ofCache = {...states, shape: statesShape(inputs.shape, rows, cache.shape[2])};
      const geometry = {batch: 1, heads: rows, queryLength: heads, valueDim: headDim};
      return [
        {program: new StoreTokensProgram(inputs, cache), output: cache},
        {program: new AttendRowsProgram(inputs, cache), output: ofCache},
        {program: new CombineStatesProgram(ofCache, geometry), output: attended},
      ];
    };
    this.ofCache.push({index: this.bound.length, layer, make});
    this.bound.push(undefined, undefined, undefined);
  }

  /** Makes what depends on a cache; a run does so where it is another than before. */
  bindCache(cache: PackedCache): void {
    const {generation} = cache;
    if (this.boundCache?.cache === cache && this.boundCache.generation === generation) return;
    this.boundCache = undefined;
    for (const {index, layer, make} of this.ofCache) {
      make(cache.layers[layer]).forEach(({program, output}, i) => {
        this.release(this.bound[index + i]);
        this.bound[index + i] = undefined;
        this.bound[index + i] = program.bind(this.backend, output);
      });
    }
    this.boundCache = {cache, generation};
  }

  /** The products with all matrices of the projections, one after the other in the output. */
  private project(
    projections: PreparedProjection[],
    x: tf.TensorInfo,
    output: tf.TensorInfo,
    options: Pick<PackedProductOptions, 'residual'> = {},
  ): void {
    let firstColumn = 0;
    for (const {stored, norm} of projections as StoredProjection[]) {
      for (const {matrix, bias} of stored) {
        this.multiply(matrix as PackedMatrix, x, output, {
          ...options,
          norm: norm && this.norm(norm),
          bias,
          firstColumn,
        });
        firstColumn += matrix.shape[0];
      }
    }
  }

  /** The residual and the product, by way of `scratch` where the product goes through a norm first. */
  private projectAndAdd(
    projection: PreparedProjection,
    x: tf.TensorInfo,
    output: tf.TensorInfo,
    residual: tf.TensorInfo,
    norm: tf.TensorInfo | undefined,
    scratch: tf.TensorInfo | undefined,
  ): void {
    if (norm === undefined || scratch === undefined) {
      this.project([projection], x, output, {residual});
      return;
    }
    this.project([projection], x, scratch);
    const {weight, epsilon} = this.norm(norm);
    this.add(new RMSNormProgram(scratch, epsilon, {weight, residual}), output);
  }

  private multiply(
    {parts}: PackedMatrix,
    x: tf.TensorInfo,
    output: tf.TensorInfo,
    {firstColumn = 0, ...options}: Omit<PackedProductOptions, 'x' | 'matrix'>,
  ): void {
    for (const matrix of parts) {
      this.add(new PackedProductProgram({x, matrix, ...options, ...placeOf(matrix, output, firstColumn)}), output);
    }
  }

  private projectGated(projection: PreparedProjection, x: tf.TensorInfo, output: tf.TensorInfo): void {
    const {stored, norm} = projection as StoredProjection;
    const [gate, up] = stored.map(({matrix}) => (matrix as PackedMatrix).parts);
    const [bias, upBias] = stored.map((matrix) => matrix.bias);
    const {activation} = this.model.config;
    gate.forEach((matrix, i) => {
      const options = {norm: norm && this.norm(norm), bias, upBias, activation, ...placeOf(matrix, output)};
      this.add(new PackedProductProgram({x, matrix, up: up[i], ...options}), output);
    });
  }

  private norm(weight: tf.TensorInfo) {
    return {weight, epsilon: this.model.config.rmsNormEpsilon};
  }

  private add(program: AttentionProgram<object>, output: tf.TensorInfo): void {
    this.bound.push(program.bind(this.backend, output));
  }

  private buffer(tensor: tf.TensorInfo): GPUBuffer {
    return bufferOf(this.backend, tensor);
  }
}

/** Where the products with some rows of a matrix stand in the output, whose columns of the whole matrix begin at `firstColumn`. */
function placeOf({firstRow}: {firstRow: number}, {shape}: tf.TensorInfo, firstColumn = 0) {
  return {columns: shape[1], firstColumn: firstColumn + firstRow, firstBias: firstRow};
}
