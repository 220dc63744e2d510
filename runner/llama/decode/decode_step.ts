import type * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {type AttentionProgram, type BoundProgram, bufferOf, openPass} from '../../../src/internal';
import type {PackedMatrix} from '../../quantised/packed_matrix';
import {PackedProductProgram, type PackedProductOptions} from '../../quantised/webgpu/product_program';
import {UnpackRowsProgram} from '../../quantised/webgpu/unpack_program';
import type {LlamaConfig} from '../config';
import type {PreparedLayer, PreparedProjection, PreparedWeights, StoredProjection} from '../prepared_weights';
import type {RotaryTables} from '../rotary';
import {AttendTokenProgram, CHUNKS, MergeChunksProgram} from './attend_token';
import {LargestLogitProgram} from './choose_token';
import type {PackedCache} from './packed_cache';
import {StoreTokenProgram} from './store_token';

/** The model that a step runs; its matrices are packed. */
export interface DecodedModel {
  config: LlamaConfig;
  weights: PreparedWeights & {rotary: RotaryTables};
}

/**
 * One token through the model, recorded once: pipelines, buffers and bind groups are made when it is constructed and used again for
 * every token, in one pass. What changes from token to token, its id and its position, lies in buffers; the id that is chosen is the
 * next one's without passing through this thread.
 */
export class DecodeStep {
  private readonly logits: tf.TensorInfo;
  private readonly token: tf.TensorInfo;
  private readonly position: tf.TensorInfo;
  private readonly bound: BoundProgram[] = [];
  private readonly scratch: tf.TensorInfo[] = [];
  private readonly readback: GPUBuffer;

  /** @param cache whose layers are bound: the step is good for this `generation` of it. */
  constructor(
    private readonly backend: WebGPUBackend,
    private readonly model: DecodedModel,
    cache: PackedCache,
  ) {
    this.readback = backend.device.createBuffer({size: 4, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ});
    this.token = this.make([1], 'int32');
    this.position = this.make([1], 'int32');
    this.logits = this.make([1, model.config.vocabSize]);
    try {
      this.record(cache);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  private record(cache: PackedCache): void {
    const {hiddenSize, intermediateSize, heads, keyValueHeads, headDim} = this.model.config;
    const {embedding, layers, norm, head} = this.model.weights;
    // Two, since a program cannot read what it writes: the residual stream goes from one to the other.
    const [stream, other] = [this.make([1, hiddenSize]), this.make([1, hiddenSize])];
    const projected = this.make([1, (heads + 2 * keyValueHeads) * headDim]);
    const states = this.make([heads, CHUNKS, 4 + headDim]);
    const attended = this.make([1, heads * headDim]);
    const gated = this.make([1, intermediateSize]);

    for (const part of (embedding as PackedMatrix).parts) {
      this.add(new UnpackRowsProgram(part, this.token, part.firstRow), stream);
    }
    layers.forEach((layer, index) => {
      this.attendLayer(layer, cache.layers[index], {stream, projected, states, attended});
      this.project([layer.output], attended, other, {residual: stream});
      this.projectGated(layer.gateAndUp, other, gated);
      this.project([layer.down], gated, stream, {residual: other});
    });
    this.multiply(head as PackedMatrix, stream, this.logits, {norm: this.norm(norm)});
    this.add(new LargestLogitProgram(this.logits), this.token);
  }

  private make(shape: number[], dtype: tf.DataType = 'float32'): tf.TensorInfo {
    const info = this.backend.makeTensorInfo(shape, dtype);
    this.scratch.push(info);
    return info;
  }

  /**
   * Sends a token off.
   *
   * @param token its id; without it the most likely one after the token before.
   * @param position where it stands: the rows of the cache before are read, and this one is written.
   */
  run(token: number | undefined, position: number): void {
    const {backend} = this;
    backend.queue.writeBuffer(this.buffer(this.position), 0, Int32Array.of(position));
    if (token !== undefined) backend.queue.writeBuffer(this.buffer(this.token), 0, Int32Array.of(token));
    const pass = openPass(backend);
    for (const program of this.bound) program.encode(pass);
    backend.endComputePassEncoder();
    backend.submitQueue();
  }

  /** float32 `[1, vocabSize]`, of the token that was run last, as a tensor of the caller's that the next run overwrites. */
  borrowLogits(): tf.TensorInfo {
    this.backend.incRef(this.logits.dataId);
    return this.logits;
  }

  /** The most likely token after the one that was run last. */
  async mostLikely(): Promise<number> {
    const {device} = this.backend;
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.buffer(this.token), 0, this.readback, 0, 4);
    device.queue.submit([encoder.finish()]);
    await this.readback.mapAsync(GPUMapMode.READ);
    const [token] = new Int32Array(this.readback.getMappedRange().slice(0));
    this.readback.unmap();
    return token;
  }

  dispose(): void {
    this.bound.splice(0).forEach(({uniforms}) => this.backend.bufferManager.releaseBuffer(uniforms));
    this.scratch.splice(0).forEach(({dataId}) => this.backend.disposeData(dataId));
    this.readback.destroy();
  }

  private attendLayer(
    layer: PreparedLayer,
    cache: tf.TensorInfo,
    tensors: Record<'stream' | 'projected' | 'states' | 'attended', tf.TensorInfo>,
  ): void {
    const {stream, projected, states, attended} = tensors;
    const {config, weights} = this.model;
    this.project([layer.queryAndKey, layer.value], stream, projected);
    const inputs = {
      projected,
      position: this.position,
      rotary: weights.rotary,
      norm: layer.queryAndKeyNorm && this.norm(layer.queryAndKeyNorm),
      shape: config,
    };
    this.add(new StoreTokenProgram(inputs, cache), cache);
    this.add(new AttendTokenProgram(inputs, cache), states);
    this.add(new MergeChunksProgram(states), attended);
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
    gate.forEach((matrix, i) => {
      const options = {norm: norm && this.norm(norm), bias, upBias, ...placeOf(matrix, output)};
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
