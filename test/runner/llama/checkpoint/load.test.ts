import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import type {CheckpointFile} from '../../../../runner/llama/checkpoint_file';
import {LlamaModel} from '../../../../runner/llama/model';
import {describeBackends} from '../../../setup/environment';
import {loadModel, rejection, tinyFiles} from '../tiny/random_checkpoint';

describeBackends('LlamaModel.load', (backend) => {
  before(() => tf.setBackend(backend));

  it('tells how far it is', async () => {
    const progress: string[] = [];
    const checkpoint = await openCheckpoint(tinyFiles());
    const model = await LlamaModel.load(checkpoint, {onProgress: (done, total) => progress.push(`${done}/${total}`)});
    expect(progress).to.deep.equal(Array.from({length: 20}, (_, i) => `${i + 1}/20`));
    model.dispose();
  });

  it('leaves nothing behind when a file cannot be read to its end', async () => {
    const {numTensors, numBytes} = tf.memory();
    const weights = tinyFiles()[2];
    let slices = 0;
    const failing: CheckpointFile = {
      name: weights.name,
      size: weights.size,
      slice(start, end) {
        // Two slices for the header, then a tensor each.
        if (++slices > 12) return {arrayBuffer: () => Promise.reject(new Error('the disk is gone'))};
        return weights.slice(start, end);
      },
    };
    const loading = openCheckpoint([...tinyFiles().slice(0, 2), failing]).then((found) => LlamaModel.load(found));
    expect(await rejection(loading)).to.equal('model.safetensors: could not be read: the disk is gone');
    expect(slices).to.equal(13);
    expect(tf.memory()).to.include({numTensors, numBytes});
  });

  it('gives everything back on dispose', async () => {
    const {numTensors, numBytes} = tf.memory();
    const model = await loadModel(tinyFiles());
    // Embedding, last norm, two rotary tables; in each of two layers five products. On WebGPU seven matrices a layer, two norms beside
    // them, and scales of the matrix whose inputs make whole groups.
    expect(tf.memory().numTensors).to.equal(numTensors + (backend === 'webgpu' ? 24 : 14));
    model.dispose();
    expect(tf.memory()).to.include({numTensors, numBytes});
  });
});
