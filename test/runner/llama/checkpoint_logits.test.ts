import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PrefillAttention} from '../../../runner/llama/attention';
import type {LlamaModel, PrefillRequest} from '../../../runner/llama/model';
import {describeBackends} from '../../setup/environment';
import {storedAs, valuesOf, type Dtype} from './dtypes';
import {referenceLogits, type ReferenceConfig} from './reference_decoder';
import {
  jsonFile,
  loadModel,
  tinyFiles,
  tinyIds,
  tinyTensors,
  writeSafetensors,
  type TinyConfig,
} from './tiny_checkpoint';

const base = {
  vocab_size: 61,
  hidden_size: 32,
  intermediate_size: 44,
  num_hidden_layers: 2,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
};

const llama3Rope = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  // With 8 frequencies of base 10,000, waves of 6 tokens stay, of 20 and 63 lie between, and longer ones are stretched.
  original_max_position_embeddings: 64,
};

type Config = TinyConfig & ReferenceConfig;

const llama3: Config = {
  ...base,
  architectures: ['LlamaForCausalLM'],
  num_attention_heads: 2,
  num_key_value_heads: 1,
  rope_theta: 10_000,
  rope_scaling: llama3Rope,
  tie_word_embeddings: false,
};

const qwen2: Config = {
  ...base,
  architectures: ['Qwen2ForCausalLM'],
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rope_theta: 1_000_000,
  tie_word_embeddings: true,
};

const biasedLlama: Config = {
  ...base,
  architectures: ['LlamaForCausalLM'],
  hidden_size: 20,
  num_attention_heads: 4,
  num_key_value_heads: 1,
  head_dim: 12,
  attention_bias: true,
  mlp_bias: true,
  rope_theta: 10_000,
  rope_scaling: {type: 'linear', factor: 4},
  tie_word_embeddings: true,
};

const fromTransformers5: Config = {
  ...llama3,
  rope_theta: undefined,
  rope_scaling: undefined,
  rope_parameters: {...llama3Rope, rope_theta: 10_000},
};

/** What the checkpoint has, and what of it a runner could overlook. */
const checkpoints: Array<[name: string, config: Config, overlooked: Record<string, Overlook>]> = [
  [
    'Llama, rotary embedding scaled as in Llama 3, untied head',
    llama3,
    {
      scaling: (config, tensors) => [{...config, rope_scaling: undefined}, tensors],
      head: (config, tensors) => [{...config, tie_word_embeddings: true}, tensors],
    },
  ],
  ['Qwen2, biased queries, keys and values, tied head', qwen2, {biases: withoutBiases('self_attn')}],
  [
    'Llama, heads wider than hidden / heads, all biases, linear scaling in the older field',
    biasedLlama,
    {
      scaling: (config, tensors) => [{...config, rope_scaling: undefined}, tensors],
      'output bias': withoutBiases('o_proj'),
      'MLP biases': withoutBiases('mlp'),
    },
  ],
  ['Llama, rotary fields of transformers 5', fromTransformers5, {}],
];

type Values = Record<string, Float32Array>;
type Overlook = (config: Config, tensors: Values) => [Config, Values];

function withoutBiases(part: string): Overlook {
  return (config, tensors) => {
    const kept = Object.entries(tensors).filter(([name]) => !(name.includes(part) && name.endsWith('.bias')));
    expect(kept.length).to.be.lessThan(Object.keys(tensors).length);
    return [config, Object.fromEntries(kept)];
  };
}

async function prefillLogits(model: LlamaModel, ids: number[], request?: PrefillRequest): Promise<number[]> {
  const {logits, cache} = await model.prefill(ids, request);
  cache.dispose();
  return takeData(logits);
}

async function takeData(tensor: tf.Tensor): Promise<number[]> {
  const values = await tensor.data();
  tensor.dispose();
  return [...values];
}

/** Length of the difference over the length of what was expected; NaN is less than nothing. */
function relativeError(got: number[], expected: number[]): number {
  expect(got.length).to.equal(expected.length);
  return Math.hypot(...got.map((x, i) => x - expected[i])) / Math.hypot(...expected);
}

describeBackends('logits of checkpoints against a plain float64 decoder', (backend) => {
  let tensorsBefore: number;
  before(() => tf.setBackend(backend));
  beforeEach(() => {
    tensorsBefore = tf.memory().numTensors;
  });
  afterEach(() => {
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensorsBefore);
  });

  // Two segments and a part of one, the last block not full.
  const ids = tinyIds(75);
  const options = {blockSize: 16, segmentSize: 32};

  for (const [name, config, overlooked] of checkpoints) {
    describe(name, () => {
      const stored = tinyTensors(config);
      const values = Object.fromEntries(Object.entries(stored).map(([key, tensor]) => [key, valuesOf(tensor)]));
      const expected = referenceLogits(config, values, ids);
      let model: LlamaModel;
      before(async () => {
        model = await loadModel(tinyFiles(config, stored));
      });
      after(() => model.dispose());

      for (const attention of ['composed', 'flash', 'pbs'] satisfies PrefillAttention[]) {
        it(`prefills with ${attention} attention`, async () => {
          const got = await prefillLogits(model, ids, {attention, options: {...options, threshold: 1}});
          expect(relativeError(got, expected.at(-1)!)).to.be.lessThan(1e-4);
        });
      }

      it('leaves out blocks where the threshold lets it', async () => {
        const sparse = {...options, threshold: 0};
        const got = await prefillLogits(model, ids, {attention: 'pbs', options: sparse});
        expect(relativeError(got, expected.at(-1)!)).to.be.within(1e-3, 1.5);
      });

      it('decodes after a prefill', async () => {
        const {logits, cache} = await model.prefill(ids.slice(0, 70), {attention: 'flash'});
        logits.dispose();
        for (let i = 70; i < ids.length; ++i) {
          const got = await takeData(model.decode(ids[i], cache));
          expect(relativeError(got, expected[i]), `after token ${i}`).to.be.lessThan(1e-4);
        }
        cache.dispose();
      });

      for (const [what, overlook] of Object.entries(overlooked)) {
        it(`would differ without its ${what}`, () => {
          const other = referenceLogits(...overlook(config, values), ids);
          expect(relativeError(other.at(-1)!, expected.at(-1)!)).to.be.greaterThan(1e-2);
        });
      }
    });
  }

  for (const dtype of ['BF16', 'F16'] satisfies Dtype[]) {
    it(`reads ${dtype} weights exactly`, async () => {
      const stored = Object.fromEntries(
        Object.entries(tinyTensors(qwen2)).map(([name, tensor]) => [name, storedAs(dtype, tensor)]),
      );
      const values = Object.fromEntries(Object.entries(stored).map(([name, tensor]) => [name, valuesOf(tensor)]));
      const expected = referenceLogits(qwen2, values, ids).at(-1)!;
      const model = await loadModel(tinyFiles(qwen2, stored));
      expect(relativeError(await prefillLogits(model, ids), expected)).to.be.lessThan(1e-4);
      model.dispose();

      const unrounded = Object.fromEntries(
        Object.entries(tinyTensors(qwen2)).map(([name, tensor]) => [name, valuesOf(tensor)]),
      );
      const other = referenceLogits(qwen2, unrounded, ids).at(-1)!;
      expect(relativeError(other, expected), 'rounding shows').to.be.greaterThan(1e-4);
    });
  }

  it('reads the same model from shards of several types, with an index and without', async () => {
    const names = Object.keys(tinyTensors(llama3));
    const stored = Object.fromEntries(
      // Rounded before, so that one file of float32 can hold the same values.
      Object.entries(tinyTensors(llama3)).map(([name, tensor], i) => [name, i % 2 ? tensor : storedAs('BF16', tensor)]),
    );
    const whole = await loadModel(tinyFiles(llama3, stored));
    const expected = await prefillLogits(whole, ids);
    whole.dispose();
    const shardName = (i: number) => `model-0000${i + 1}-of-00003.safetensors`;
    const shards = [0, 1, 2].map((shard) => {
      const part = names.filter((_, i) => i % 3 === shard).map((name) => [name, stored[name]]);
      return new File([writeSafetensors(Object.fromEntries(part))], shardName(shard));
    });
    const weight_map = Object.fromEntries(names.map((name, i) => [name, shardName(i % 3)]));
    const others = tinyFiles(llama3).slice(0, 2);
    for (const files of [
      [...shards].reverse(),
      [...shards, jsonFile('model.safetensors.index.json', {metadata: {total_size: 1}, weight_map})],
    ]) {
      const model = await loadModel([...files, ...others]);
      expect(await prefillLogits(model, ids)).to.deep.equal(expected);
      model.dispose();
    }
  });
});
