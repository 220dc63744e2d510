import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {sparseFrom, SparseReading} from '../../../../demo/engine/sparse_reading';
import type {LlamaModel} from '../../../../runner/llama/model';
import type {PrefillRequest} from '../../../../runner/llama/prefill_request';
import {describeBackends} from '../../../setup/environment';
import {loadModel, tinyFiles, tinyIds} from '../tiny/random_checkpoint';

describeBackends('reading whose blocks can be told', (backend) => {
  let model: LlamaModel;
  let tensorsBefore: number;
  before(async () => {
    await tf.setBackend(backend);
    tensorsBefore = tf.memory().numTensors;
    model = await loadModel(tinyFiles());
  });
  after(() => {
    model.dispose();
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  async function read(request: PrefillRequest): Promise<Float32Array> {
    const {logits, cache} = await model.prefill(tinyIds(400), request);
    const values = await logits.data<'float32'>();
    logits.dispose();
    cache.dispose();
    return values;
  }

  it('is what pbsAttention computes by itself', async () => {
    const reading = new SparseReading(model.config, {precision: 'float32', auto: false});
    const [expected, got] = [await read({attention: 'pbs'}), await read({attend: reading.attend})];
    got.forEach((value, i) => expect(value).to.be.closeTo(expected[i], 1e-4));
    expect(await reading.density()).to.be.within(0.5, 0.999);
    expect(reading.exactReason).to.equal(undefined);
    reading.dispose();
  });

  it('is exact where the library does not expect blocks to pay', async () => {
    expect(sparseFrom(model.config, 512, 'float32')).to.equal(undefined);
    const reading = new SparseReading(model.config, {precision: 'float32', auto: true});
    const [expected, got] = [await read({attention: 'flash'}), await read({attend: reading.attend})];
    got.forEach((value, i) => expect(value).to.be.closeTo(expected[i], 1e-4));
    expect(reading.exactReason).to.equal('auto');
    expect(await reading.density()).to.equal(undefined);
  });
});
