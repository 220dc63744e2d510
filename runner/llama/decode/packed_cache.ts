import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {bufferOf, openEncoder} from '../../../src/internal';
import {copyWords} from '../../quantised/webgpu/copy_words';
import type {CacheConfig, KeyValueCache, KeyValueRows} from '../cache';
import {ReadRowsProgram, StoreRowsProgram} from './store_rows';

/** Capacities are multiples of this, so that a document of another length finds the buffers of the one before. */
const CAPACITY_STEP = 512;

/**
 * A cache of the WebGPU backend: for each layer one tensor, int32 `[2, keyValueHeads, capacity, headDim / 2]`, float16 keys and values,
 * two a word, written in place. It grows when it is full.
 */
export class PackedCache implements KeyValueCache {
  readonly elementType = 'float16';
  /** What each layer holds; others from one `generation` to the next. */
  layers: tf.Tensor4D[] = [];
  generation = 0;
  private held = 0;
  private room = 0;

  /** @param most positions that are ever held. */
  constructor(
    private readonly config: CacheConfig,
    private readonly most: number,
  ) {}

  get length(): number {
    return this.held;
  }

  /** Makes room for so many positions. What was bound to the layers before is to be bound anew: `generation` has changed. */
  reserve(length: number): void {
    if (length <= this.room) return;
    const {layers, keyValueHeads, headDim} = this.config;
    // With room for an answer, so that a prompt is not followed by a copy.
    const grown = Math.max(length + CAPACITY_STEP / 2, Math.min(2 * this.room, length + 4096));
    const capacity = Math.min(this.most, CAPACITY_STEP * Math.ceil(grown / CAPACITY_STEP));
    const old = this.layers;
    const fresh: tf.Tensor4D[] = [];
    try {
      for (let layer = 0; layer < layers; ++layer) {
        fresh.push(
          tf.keep(
            old.length > 0 ? this.moved(old[layer], capacity) : emptyTensor([2, keyValueHeads, capacity, headDim / 2]),
          ),
        );
      }
    } catch (error) {
      tf.dispose(fresh);
      throw error;
    }
    tf.dispose(old);
    this.layers = fresh;
    this.room = capacity;
    ++this.generation;
  }

  /** The first rows of a layer with another capacity. */
  private moved(layer: tf.Tensor4D, capacity: number, rows = this.held): tf.Tensor4D {
    const [two, heads, room, words] = layer.shape;
    const copies = Array.from({length: two * heads}, (_, head) => {
      return {source: layer, from: head * room * words, to: head * capacity * words, words: rows * words};
    });
    return copyWords([two, heads, capacity, words], copies);
  }

  extend(layer: number, key: tf.Tensor4D, value: tf.Tensor4D): KeyValueRows {
    const rows = key.shape[2];
    this.reserve(this.held + rows);
    const cache = this.layers[layer];
    const backend = tf.backend() as WebGPUBackend;
    new StoreRowsProgram(key, value, cache.shape, this.held).runInto(backend, cache);
    const before = this.held;
    if (layer === this.config.layers - 1) this.held += rows;
    // As they came where they are all: float16 rounds only what is read back.
    if (before === 0) return {key, value};
    const read = (isValue: boolean) =>
      tf
        .engine()
        .makeTensorFromTensorInfo(new ReadRowsProgram(cache, before + rows, isValue).run(backend)) as tf.Tensor4D;
    return {key: read(false), value: read(true)};
  }

  /** Counts rows that a recorded step has written to every layer. */
  advance(rows: number): void {
    this.held += rows;
  }

  truncate(length: number): void {
    this.held = Math.min(this.held, length);
  }

  async read(layer: number, rows: number): Promise<Uint8Array<ArrayBuffer>> {
    const packed = this.moved(this.layers[layer], rows, rows);
    try {
      const {buffer, byteOffset, byteLength} = await packed.data<'int32'>();
      return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
    } finally {
      packed.dispose();
    }
  }

  restore(layer: number, rows: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.reserve(rows);
    const backend = tf.backend() as WebGPUBackend;
    const target = this.layers[layer];
    const [two, heads, room, words] = target.shape;
    // A write overtakes what is recorded and not submitted, which may use the buffer as that of a tensor that was disposed.
    openEncoder(backend);
    backend.submitQueue();
    const headBytes = 4 * rows * words;
    for (let head = 0; head < two * heads; ++head) {
      const from = bytes.subarray(head * headBytes, (head + 1) * headBytes);
      backend.queue.writeBuffer(bufferOf(backend, target), 4 * head * room * words, from);
    }
    if (layer === this.config.layers - 1) this.held = rows;
  }

  dispose(): void {
    tf.dispose(this.layers);
    this.layers = [];
    this.held = this.room = 0;
    ++this.generation;
  }
}

/** Without values: a row is written before it is read. */
function emptyTensor(shape: [number, number, number, number]): tf.Tensor4D {
  const backend = tf.backend() as WebGPUBackend;
  return tf.engine().makeTensorFromTensorInfo(backend.makeTensorInfo(shape, 'int32')) as tf.Tensor4D;
}
