import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {describeBackends} from '../../../setup/environment';
import {
  float32Tensor,
  jsonFile,
  loadModel,
  tinyConfig,
  tinyFiles,
  tinyIds,
  tinyTensors,
  writeSafetensors,
  type StoredTensor,
} from '../tiny/random_checkpoint';
import {storedAs, valuesOf, type Dtype} from './dtypes';

async function logitsOf(files: File[]): Promise<number[]> {
  const model = await loadModel(files);
  const {logits, cache} = await model.prefill(tinyIds(40));
  const values = [...(await logits.data())];
  tf.dispose(logits);
  cache.dispose();
  model.dispose();
  return values;
}

function mapTensors(change: (tensor: StoredTensor, index: number) => StoredTensor): Record<string, StoredTensor> {
  return Object.fromEntries(Object.entries(tinyTensors()).map(([name, tensor], i) => [name, change(tensor, i)]));
}

describeBackends('a model of stored weights', (backend) => {
  let tensorsBefore: number;
  before(() => tf.setBackend(backend));
  beforeEach(() => {
    tensorsBefore = tf.memory().numTensors;
  });
  afterEach(() => {
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  for (const dtype of ['BF16', 'F16'] satisfies Dtype[]) {
    it(`is the same of ${dtype} as of its values in float32`, async () => {
      const rounded = (tensor: StoredTensor) => storedAs(dtype, tensor);
      const values = (tensor: StoredTensor) => float32Tensor(tensor.shape, valuesOf(rounded(tensor)));
      const expected = await logitsOf(tinyFiles(tinyConfig, mapTensors(values)));
      expect(await logitsOf(tinyFiles(tinyConfig, mapTensors(rounded)))).to.deep.equal(expected);
      const unrounded = await logitsOf(tinyFiles());
      const difference = Math.max(...unrounded.map((x, i) => Math.abs(x - expected[i])));
      expect(difference, 'rounding shows').to.be.greaterThan(1e-3);
    });
  }

  it('is the same of shards of several types, with an index and without', async () => {
    const stored = mapTensors((tensor, i) => (i % 2 ? tensor : storedAs('BF16', tensor)));
    const names = Object.keys(stored);
    const expected = await logitsOf(tinyFiles(tinyConfig, stored));
    const shardName = (i: number) => `model-0000${i + 1}-of-00003.safetensors`;
    const shards = [0, 1, 2].map((shard) => {
      const part = names.filter((_, i) => i % 3 === shard).map((name) => [name, stored[name]]);
      return new File([writeSafetensors(Object.fromEntries(part))], shardName(shard));
    });
    const weight_map = Object.fromEntries(names.map((name, i) => [name, shardName(i % 3)]));
    const others = tinyFiles().slice(0, 2);
    for (const files of [
      [...shards].reverse(),
      [...shards, jsonFile('model.safetensors.index.json', {metadata: {total_size: 1}, weight_map})],
    ]) {
      expect(await logitsOf([...files, ...others])).to.deep.equal(expected);
    }
  });
});
