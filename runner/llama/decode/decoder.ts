import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {PackedMatrix} from '../../quantised/packed_matrix';
import type {LlamaConfig} from '../config';
import type {PreparedProjection, PreparedWeights} from '../prepared_weights';
import {type DecodedModel, DecodeStep} from './decode_step';
import type {PackedCache} from './packed_cache';

/** Decodes tokens on the WebGPU backend over a packed cache, with a step that is recorded when it is first needed. */
export class Decoder {
  private recorded?: {step: DecodeStep; cache: PackedCache; generation: number};

  constructor(private readonly model: DecodedModel) {}

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
    const step = this.run(id, cache);
    return tf.tidy(() => {
      const logits = tf.engine().makeTensorFromTensorInfo(step.borrowLogits());
      // A copy: the next token overwrites them.
      return tf.reshape(tf.add(logits, 0), [this.model.config.vocabSize]);
    });
  }

  /** The same, and the id of the most likely token after it. */
  mostLikely(id: number, cache: PackedCache): Promise<number> {
    return this.run(id, cache).mostLikely();
  }

  dispose(): void {
    this.recorded?.step.dispose();
    this.recorded = undefined;
  }

  private run(id: number, cache: PackedCache): DecodeStep {
    cache.reserve(cache.length + 1);
    const step = this.stepOver(cache);
    step.run(id, cache.length);
    cache.advance();
    return step;
  }

  private stepOver(cache: PackedCache): DecodeStep {
    const {recorded} = this;
    if (recorded?.cache === cache && recorded.generation === cache.generation) return recorded.step;
    this.dispose();
    const step = new DecodeStep(tf.backend() as WebGPUBackend, this.model, cache);
    this.recorded = {step, cache, generation: cache.generation};
    return step;
  }
}
