import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {guardOf} from '../../../src/internal';
import {PackedMatrix} from '../../quantised/packed_matrix';
import {copyWords} from '../../quantised/webgpu/copy_words';
import type {LlamaConfig} from '../config';
import type {Choice} from '../kernels/choose_token';
import type {PreparedProjection, PreparedWeights} from '../prepared_weights';
import type {PackedCache} from './packed_cache';
import {type RecordedModel, RecordedStep} from './recorded_step';

/** Tokens that are read at a time. */
const ROWS = 32;
/** With more tokens than these a prefill is faster, which takes as many programs for all of them. */
export const FEW_TOKENS = 4 * ROWS;

/** Runs a few tokens at a time on the WebGPU backend over a packed cache, in steps that are recorded when they are first needed. */
export class Decoder {
  private readonly steps = new Map<number, RecordedStep>();
  /** Of the device when they were recorded. */
  private failures = 0;

  constructor(private readonly model: RecordedModel) {}

  /** Whether the weights of a model are all packed, as a recorded step reads them: on other backends none is. */
  static takes({headDim}: LlamaConfig, {embedding, head, layers}: PreparedWeights): boolean {
    const isPacked = (projection: PreparedProjection) =>
      'stored' in projection && projection.stored.every(({matrix}) => matrix instanceof PackedMatrix);
    return (
      headDim % 8 === 0 &&
      [embedding, head].every((matrix) => matrix instanceof PackedMatrix) &&
      layers.every(({queryAndKey, value, output, gateAndUp, down}) =>
        [queryAndKey, value, output, gateAndUp, down].every(isPacked),
      )
    );
  }

  /** Runs a token after those in the cache, which grows by it: float32 `[vocabSize]`. */
  logits(id: number, cache: PackedCache): tf.Tensor1D {
    return this.logitsOf(this.run([id], cache, 1));
  }

  /** The same: the id of the token after it, -1 where the logits are not finite. */
  next(id: number, cache: PackedCache, choice: Choice): Promise<number> {
    return this.run([id], cache, 1, choice).readChosen();
  }

  /** Runs 1 or more tokens after those in the cache, which grows by them: float32 `[vocabSize]` of the last. */
  read(ids: readonly number[], cache: PackedCache): tf.Tensor1D {
    // At once, so that the cache is not moved in between.
    cache.reserve(cache.length + ids.length);
    let step: RecordedStep;
    let start = 0;
    do step = this.run(ids.slice(start, start + ROWS), cache, ROWS);
    while ((start += ROWS) < ids.length);
    return this.logitsOf(step);
  }

  /** Makes what a cache is continued with, which takes long where the device compiles it for the first time. */
  prepare(cache: PackedCache): void {
    for (const rows of [1, ROWS]) this.stepOf(rows).bindCache(cache);
  }

  dispose(): void {
    this.steps.forEach((step) => step.dispose());
    this.steps.clear();
  }

  private run(ids: readonly number[], cache: PackedCache, rows: number, choice?: Choice): RecordedStep {
    cache.reserve(cache.length + ids.length);
    const step = this.stepOf(rows);
    step.run(ids, cache, choice);
    cache.advance(ids.length);
    return step;
  }

  private logitsOf({logits}: RecordedStep): tf.Tensor1D {
    const {vocabSize} = this.model.config;
    return copyWords([vocabSize], [{source: logits, from: 0, to: 0, words: vocabSize}], 'float32');
  }

  private stepOf(rows: number): RecordedStep {
    const backend = tf.backend() as WebGPUBackend;
    const {failures} = guardOf(backend);
    if (failures !== this.failures) {
      // What is recorded may be what failed.
      this.dispose();
      this.failures = failures;
    }
    let step = this.steps.get(rows);
    if (!step) this.steps.set(rows, (step = new RecordedStep(backend, this.model, rows)));
    return step;
  }
}
