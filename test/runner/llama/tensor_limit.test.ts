import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {describeBackends} from '../../setup/environment';
import {loadModel, rejection, tinyFiles, tinyIds} from './tiny/random_checkpoint';

/** Lets the current backend hold tensors of at most so many values while a function runs. */
async function withLimit<T>(values: number, run: () => Promise<T>): Promise<T> {
  if (tf.getBackend() === 'webgl') {
    const before = tf.env().getNumber('WEBGL_MAX_TEXTURE_SIZE');
    tf.env().set('WEBGL_MAX_TEXTURE_SIZE', Math.sqrt(values));
    return run().finally(() => tf.env().set('WEBGL_MAX_TEXTURE_SIZE', before));
  }
  const {device} = tf.backend() as WebGPUBackend;
  const limits = {maxStorageBufferBindingSize: 4 * values, maxBufferSize: 2 ** 30};
  // The device's own where it has them (Dawn in Node), else those of its class (Chromium).
  const own = Object.getOwnPropertyDescriptor(device, 'limits');
  Object.defineProperty(device, 'limits', {value: limits, configurable: true});
  return run().finally(() => {
    if (own) Object.defineProperty(device, 'limits', own);
    else Reflect.deleteProperty(device, 'limits');
  });
}

describeBackends('what one tensor can hold', (backend) => {
  if (backend === 'cpu') return;
  before(() => tf.setBackend(backend));

  it('refuses a checkpoint with a larger tensor before anything is read', async () => {
    const tensors = tf.memory().numTensors;
    // The embedding has 61 × 36 values, all others fewer.
    const message = await withLimit(1024, () => rejection(loadModel(tinyFiles())));
    expect(message).to.match(
      /^tensor "model\.embed_tokens\.weight" \[61,36\] takes 8784 bytes in float32; accepted: at most 4096, the largest/,
    );
    expect(message).to.include(`of this ${backend} backend`);
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('refuses a prompt with larger hidden states before anything is launched', async () => {
    const model = await loadModel(tinyFiles());
    const tensors = tf.memory().numTensors;
    const error = await withLimit(4096, () => model.prefill(tinyIds(120)).catch((error: Error) => error));
    expect(error).to.have.property('name', 'OutOfMemoryError');
    expect((error as Error).message).to.match(
      /^hidden states \[120,36\] takes 17280 bytes in float32; accepted: at most 16384/,
    );
    expect(tf.memory().numTensors).to.equal(tensors);
    model.dispose();
  });
});
