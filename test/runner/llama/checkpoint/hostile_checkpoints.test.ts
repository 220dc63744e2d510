import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import type {CheckpointFile} from '../../../../runner/llama/checkpoint_file';
import {parseConfig} from '../../../../runner/llama/config';
import {LlamaModel} from '../../../../runner/llama/model';
import {GREEDY, Sampler} from '../../../../runner/llama/sample';
import {describeOnCPU} from '../../../setup/environment';
import {
  float32Tensor,
  jsonFile,
  loadModel,
  rejection,
  tinyConfig,
  tinyFiles,
  tinyIds,
  tinyTensors,
  type StoredTensor,
} from '../tiny/random_checkpoint';

/** Of a machine that is busy; what it would take otherwise is minutes, or all memory. */
const timeLimit = 10_000;

async function inTime<T>(run: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await run();
  expect(performance.now() - start).to.be.below(timeLimit);
  return result;
}

/** The tiny tensors with one value of one of them changed. */
function tensorsWith(name: string, value: number, at = 0): Record<string, StoredTensor> {
  const tensors = tinyTensors();
  const {bytes} = tensors[name];
  new DataView(bytes.buffer, bytes.byteOffset).setFloat32(4 * at, value, true);
  return tensors;
}

describeOnCPU('hostile checkpoints', () => {
  for (const layers of [1e6, 1e8, Number.MAX_SAFE_INTEGER]) {
    it(`refuses ${layers} layers by the first that is missing`, async () => {
      const message = await inTime(() =>
        rejection(openCheckpoint(tinyFiles({...tinyConfig, num_hidden_layers: layers}))),
      );
      expect(message).to.match(/^model\.safetensors: tensor "model\.layers\.2\.input_layernorm\.weight" is missing/);
    });
  }

  it('refuses numbers that float32 does not have, or that make everything 0 or infinite', () => {
    const refused: [string, unknown][] = [
      ['rope_theta', 1e-320],
      ['rope_theta', 0.5],
      ['rope_theta', 1e300],
      ['rms_norm_eps', 1e308],
      ['rms_norm_eps', 1e-320],
      ['rms_norm_eps', 2],
      ['num_hidden_layers', 1e300],
      ['head_dim', 16_384],
    ];
    for (const [field, value] of refused) {
      expect(() => parseConfig({...tinyConfig, [field]: value}), field).to.throw(
        `config.json: ${field} is ${JSON.stringify(value)}; accepted: `,
      );
    }
    const scaling = {rope_type: 'linear', factor: 1e308};
    expect(() => parseConfig({...tinyConfig, rope_scaling: scaling})).to.throw(/rope_scaling\.factor is 1e\+308/);
  });

  it('says in few words what came, whatever its length', () => {
    const long = 'x'.repeat(1e6);
    for (const [field, value] of Object.entries({hidden_act: long, vocab_size: [long], architectures: [long]})) {
      try {
        parseConfig({...tinyConfig, [field]: value});
      } catch (error) {
        expect((error as Error).message.length).to.be.below(1000);
        continue;
      }
      throw new Error(`${field} was to be refused`);
    }
  });

  it('makes tables for no more positions than a machine has room for', async () => {
    const {numBytes} = tf.memory();
    const model = await loadModel(tinyFiles({...tinyConfig, max_position_embeddings: 1e9}));
    expect(model.maxLength).to.equal(2 ** 21);
    expect(tf.memory().numBytes - numBytes).to.be.below(2 ** 27 + 2 ** 20);
    model.dispose();
    const loading = loadModel(tinyFiles(), {maxLength: 2 ** 30});
    expect(await rejection(loading)).to.equal('maxLength is 1073741824; accepted: 1 to 2097152 with a head dim of 8');
  });

  it('refuses weights that are not finite, and keeps nothing of the model', async () => {
    const {numTensors} = tf.memory();
    for (const value of [NaN, Infinity, -Infinity]) {
      const files = tinyFiles(tinyConfig, tensorsWith('model.layers.1.mlp.up_proj.weight', value, 5));
      expect(await rejection(loadModel(files))).to.equal(
        `model.safetensors: tensor "model.layers.1.mlp.up_proj.weight" has ${value} at 5; accepted: finite numbers`,
      );
    }
    expect(tf.memory().numTensors).to.equal(numTensors);
  });

  it('refuses the most likely token of logits that are not finite', async () => {
    // Finite weights, whose products are not.
    const norm = float32Tensor([36], new Float32Array(36).fill(3e38));
    const model = await loadModel(tinyFiles(tinyConfig, {...tinyTensors(), 'model.norm.weight': norm}));
    const {logits, cache} = await model.prefill(tinyIds(5));
    expect(await rejection(new Sampler(GREEDY).next(logits))).to.match(/logits are not finite; accepted: finite/);
    tf.dispose(logits);
    cache.dispose();
    model.dispose();
    for (const values of [
      [1, NaN, 2],
      [NaN, 1],
      [1, Infinity],
      [-Infinity, -Infinity],
    ]) {
      const bad = tf.tensor1d(values);
      expect(await rejection(new Sampler(GREEDY).next(bad)), `${values}`).to.match(/logits are not finite/);
      bad.dispose();
    }
  });

  it('refuses token ids that the model does not have, undefined ones too', async () => {
    const model = await loadModel(tinyFiles());
    for (const id of [61, 1e9, -1, 0.5, NaN, undefined]) {
      expect(await rejection(model.prefill([1, id as number]))).to.equal(
        `token id is ${id}; accepted: integers from 0 to 60`,
      );
    }
    model.dispose();
  });

  it('refuses tokens past the vocabulary, but for added ones, which may be there for padding', async () => {
    const withTokenizer = (tokenizer: object) => [
      ...tinyFiles().filter(({name}) => name !== 'tokenizer.json'),
      jsonFile('tokenizer.json', tokenizer),
    ];
    const model = {type: 'BPE', merges: [], vocab: {a: 0, b: 61}};
    expect(await rejection(openCheckpoint(withTokenizer({model})))).to.equal(
      'tokenizer.json: model.vocab["b"] is 61; accepted: ids up to 60, as many as the model has tokens',
    );
    await openCheckpoint(withTokenizer({model, added_tokens: [{id: 61, content: 'b'}]}));
    const odd = {type: 'BPE', merges: [], vocab: {a: 1e12}};
    expect(await rejection(openCheckpoint(withTokenizer({model: odd})))).to.match(
      /^tokenizer\.json: model\.vocab\["a"\] is 1000000000000; accepted: integers from 0 to/,
    );
  });

  it('reads the names of 3,000 shards in no time, and names a few of those that are missing', async () => {
    const [config, tokenizer] = tinyFiles();
    const shard = (i: number, count: number): CheckpointFile =>
      new File([], `model-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.safetensors`);
    const files = [config, tokenizer, ...Array.from({length: 3000}, (_, i) => shard(i, 9999))];
    const message = await inTime(() => rejection(openCheckpoint(files)));
    expect(message).to.match(
      /^missing: model-03001-of-09999\.safetensors, .* and 6993 more; got config\.json, .* and 2996 more$/,
    );
    expect(message.length).to.be.below(1000);
    // As many claims as there are files.
    const claims = [config, tokenizer, ...Array.from({length: 3000}, (_, i) => shard(i, 7000 + i))];
    expect(await inTime(() => rejection(openCheckpoint(claims)))).to.match(/files of weights; accepted: up to 10000$/);
  });

  it('leaves nothing behind of two loads at once', async () => {
    const {numTensors, numBytes} = tf.memory();
    const models = await Promise.all([loadModel(tinyFiles()), loadModel(tinyFiles())]);
    models.forEach((model) => model.dispose());
    expect(tf.memory()).to.include({numTensors, numBytes});
    const bad = tinyFiles(tinyConfig, tensorsWith('model.norm.weight', NaN));
    const [good, failed] = await Promise.allSettled([loadModel(tinyFiles()), loadModel(bad)]);
    expect(failed.status).to.equal('rejected');
    (good as PromiseFulfilledResult<LlamaModel>).value.dispose();
    expect(tf.memory()).to.include({numTensors, numBytes});
  });
});
