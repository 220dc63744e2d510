import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import type {CheckpointFile} from '../../../../runner/llama/checkpoint_file';
import {
  float32Tensor,
  jsonFile,
  rejection,
  tinyConfig,
  tinyFiles,
  tinyTensors,
  tinyTokenizer,
  writeSafetensors,
  type StoredTensor,
} from '../tiny/random_checkpoint';

type Tensors = Record<string, StoredTensor>;

const INDEX = 'model.safetensors.index.json';
const NORM = 'model.norm.weight';
const zeros = (...shape: number[]) => float32Tensor(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)));
const weightsFile = (name: string, tensors: Tensors) => new File([writeSafetensors(tensors)], name);

/** The tiny checkpoint with some of its files replaced, added or, where `null`, left out. */
function filesWith(changes: Record<string, File | null>): File[] {
  const files = tinyFiles().filter(({name}) => !(name in changes));
  return [...files, ...Object.values(changes).filter((file) => file !== null)];
}

function filesWithTensors(changes: Record<string, StoredTensor | null>, config: object = tinyConfig): File[] {
  const tensors = Object.entries({...tinyTensors(), ...changes}).filter(([, tensor]) => tensor !== null);
  return tinyFiles(config, Object.fromEntries(tensors) as Tensors);
}

/** The tiny checkpoint in two shards: the embedding, and all else. */
function shards(): {first: Tensors; second: Tensors; weightMap: Record<string, string>} {
  const {'model.embed_tokens.weight': embedding, ...second} = tinyTensors();
  const first = {'model.embed_tokens.weight': embedding};
  const weightMap = Object.fromEntries([
    ...Object.keys(first).map((name) => [name, 'a.safetensors']),
    ...Object.keys(second).map((name) => [name, 'b.safetensors']),
  ]) as Record<string, string>;
  return {first, second, weightMap};
}

function sharded(change: (parts: ReturnType<typeof shards>) => void): File[] {
  const parts = shards();
  change(parts);
  return filesWith({
    'model.safetensors': null,
    'a.safetensors': weightsFile('a.safetensors', parts.first),
    'b.safetensors': weightsFile('b.safetensors', parts.second),
    [INDEX]: jsonFile(INDEX, {weight_map: parts.weightMap}),
  });
}

function truncated(file: File, bytes: number): File {
  return new File([file.slice(0, file.size - bytes)], file.name);
}

const tinyWeights = () => tinyFiles()[2];

const refused: Array<[what: string, files: () => CheckpointFile[], message: RegExp]> = [
  ['no files', () => [], /^missing: config\.json, tokenizer\.json, model\.safetensors; got no files$/],
  [
    'no config.json',
    () => filesWith({'config.json': null}),
    /^missing: config\.json; got tokenizer\.json, model\.safetensors$/,
  ],
  ['no tokenizer.json', () => filesWith({'tokenizer.json': null}), /^missing: tokenizer\.json; got /],
  [
    'weights of another format',
    () => filesWith({'model.safetensors': null, 'model.pth': new File(['GGUF'], 'model.pth')}),
    /^missing: model\.safetensors; got .*model\.pth$/,
  ],
  [
    'a shard too few, by the index',
    () => sharded(() => {}).filter(({name}) => name !== 'b.safetensors'),
    /^missing: b\.safetensors; got .*a\.safetensors/,
  ],
  [
    'a shard too few, by the names',
    () => {
      const [first, third] = ['model-00001-of-00003.safetensors', 'model-00003-of-00003.safetensors'];
      return filesWith({
        'model.safetensors': null,
        [first]: weightsFile(first, shards().first),
        [third]: weightsFile(third, shards().second),
      });
    },
    /^missing: model-00002-of-00003\.safetensors; got /,
  ],
  ['a file twice', () => [...tinyFiles(), jsonFile('config.json', {})], /^config\.json: came twice; accepted: /],
  [
    'a config.json that is not JSON',
    () => filesWith({'config.json': new File(['{"a": NaN}'], 'config.json')}),
    /^config\.json: not JSON: /,
  ],
  [
    'a config.json that is a list',
    () => filesWith({'config.json': jsonFile('config.json', [])}),
    /^config\.json: got a list; accepted: a JSON object/,
  ],
  [
    'another architecture',
    () => tinyFiles({...tinyConfig, architectures: ['GemmaForCausalLM']}),
    /^config\.json: architectures is \["GemmaForCausalLM"\]; accepted: \["LlamaForCausalLM"\], \["Mistral/,
  ],
  [
    'quantised weights',
    () => tinyFiles({...tinyConfig, quantization_config: {quant_method: 'gptq'}}),
    /^config\.json: quantization_config is \{"quant_method":"gptq"\}; accepted: null/,
  ],
  [
    'a tokenizer.json that is not JSON',
    () => filesWith({'tokenizer.json': new File(['version https'], 'tokenizer.json')}),
    /^tokenizer\.json: not JSON: /,
  ],
  [
    'a tokenizer.json without a model',
    () => filesWith({'tokenizer.json': jsonFile('tokenizer.json', {version: '1.0'})}),
    /^tokenizer\.json: model is missing; accepted: an object/,
  ],
  [
    'an index without weight_map',
    () => filesWith({[INDEX]: jsonFile(INDEX, {metadata: {}})}),
    /index\.json: weight_map is missing; accepted: an object/,
  ],
  [
    'an index that names a file of another format',
    () => filesWith({[INDEX]: jsonFile(INDEX, {weight_map: {[NORM]: 'pytorch_model.bin'}})}),
    /index\.json: weight_map\["model\.norm\.weight"\] is "pytorch_model\.bin"; accepted: .*\.safetensors file/,
  ],
  [
    'an index that is empty',
    () => filesWith({[INDEX]: jsonFile(INDEX, {weight_map: {}})}),
    /index\.json: weight_map is \{\}; accepted/,
  ],
  [
    'a tensor that is not in the shard that the index names',
    () => sharded(({weightMap}) => (weightMap[NORM] = 'a.safetensors')),
    /^a\.safetensors: tensor "model\.norm\.weight" is missing; .*index\.json says that it is there/,
  ],
  [
    'a tensor in two shards',
    () => sharded(({first}) => (first[NORM] = zeros(36))),
    /^tensor "model\.norm\.weight" is in a\.safetensors and in b\.safetensors; accepted: one of them/,
  ],
  [
    'two whole files of weights',
    () => filesWith({'other.safetensors': weightsFile('other.safetensors', tinyTensors())}),
    /^tensor ".*" is in model\.safetensors and in other\.safetensors/,
  ],
  [
    'a tensor that is in no shard',
    () =>
      sharded(({second, weightMap}) => {
        delete second[NORM];
        delete weightMap[NORM];
      }),
    /^a\.safetensors to b\.safetensors: tensor "model\.norm\.weight" is missing/,
  ],
  [
    'a truncated shard',
    () => sharded(() => {}).map((file) => (file.name === 'b.safetensors' ? truncated(file, 1) : file)),
    /^b\.safetensors: tensor "model\.norm\.weight" ends at byte \d+; the file has \d+: is it truncated\?/,
  ],
  [
    'a Git LFS pointer instead of the weights',
    () =>
      filesWith({'model.safetensors': new File(['version https://git-lfs.github.com/spec/v1'], 'model.safetensors')}),
    /^model\.safetensors: the header claims \d+ bytes; there is room for 34: is it a safetensors file, whole\?/,
  ],
  [
    'a layer too few',
    () => tinyFiles({...tinyConfig, num_hidden_layers: 3}),
    /^model\.safetensors: tensor "model\.layers\.2\.input_layernorm\.weight" is missing; there are 20 others/,
  ],
  [
    'an untied head that is not there',
    () => tinyFiles({...tinyConfig, tie_word_embeddings: false}),
    /^model\.safetensors: tensor "lm_head\.weight" is missing/,
  ],
  [
    'a bias that is not there',
    () => tinyFiles({...tinyConfig, architectures: ['Qwen2ForCausalLM']}),
    /^model\.safetensors: tensor "model\.layers\.0\.self_attn\.q_proj\.bias" is missing/,
  ],
  [
    'a bias that the config does not call for',
    () => filesWithTensors({'model.layers.1.self_attn.o_proj.bias': zeros(36)}),
    /^model\.safetensors: tensor "model\.layers\.1\.self_attn\.o_proj\.bias" has no place in a LlamaForCausalLM/,
  ],
  [
    'norms of queries and keys that are not there',
    () => tinyFiles({...tinyConfig, architectures: ['Qwen3ForCausalLM']}),
    /^model\.safetensors: tensor "model\.layers\.0\.self_attn\.q_norm\.weight" is missing/,
  ],
  [
    'norms of keys that the architecture does not have',
    () => filesWithTensors({'model.layers.1.self_attn.k_norm.weight': zeros(8)}),
    /^model\.safetensors: tensor "model\.layers\.1\.self_attn\.k_norm\.weight" has no place in a LlamaForCausalLM/,
  ],
  [
    'a layer too many',
    () => tinyFiles({...tinyConfig, num_hidden_layers: 1}),
    /tensor "model\.layers\.1\.input_layernorm\.weight" has no place .*\(9 such\); accepted: the 11 tensors/,
  ],
  [
    'a matrix of another shape',
    () => tinyFiles({...tinyConfig, intermediate_size: 53}),
    /"model\.layers\.0\.mlp\.gate_proj\.weight" has shape \[52,36\]; accepted: \[53,36\], by what config\.json says/,
  ],
  [
    'a norm of another shape',
    () => filesWithTensors({[NORM]: zeros(1, 36)}),
    /"model\.norm\.weight" has shape \[1,36\]; accepted: \[36\]/,
  ],
  [
    'weights in 8 bits',
    () => filesWithTensors({[NORM]: {dtype: 'F8_E4M3', shape: [36], bytes: new Uint8Array(36)}}),
    /^model\.safetensors: tensor "model\.norm\.weight" has dtype "F8_E4M3"; accepted: F32, F16, BF16/,
  ],
];

describe('openCheckpoint', () => {
  before(() => tf.ready());

  /** How many tensors were made meanwhile, disposed ones too: each has a number of its own. */
  async function tensorsMade(run: () => Promise<unknown>): Promise<number> {
    const number = () => {
      const tensor = tf.scalar(0);
      tensor.dispose();
      return tensor.id;
    };
    const before = number();
    await run();
    return number() - before - 1;
  }

  for (const [what, files, message] of refused) {
    it(`refuses ${what}, before anything is uploaded`, async () => {
      const made = await tensorsMade(async () => {
        expect(await rejection(openCheckpoint(files()))).to.match(message);
      });
      expect(made).to.equal(0);
    });
  }

  it('gives the tokenizer and the config, and reads no weights', async () => {
    const ranges: number[] = [];
    const weights = tinyWeights();
    const watched: CheckpointFile = {
      name: weights.name,
      size: weights.size,
      slice(start, end) {
        ranges.push(end);
        return weights.slice(start, end);
      },
    };
    const made = await tensorsMade(async () => {
      const checkpoint = await openCheckpoint([...tinyFiles().slice(0, 2), watched]);
      expect(checkpoint.tokenizer).to.deep.equal(tinyTokenizer);
      expect(checkpoint.config).to.include({architecture: 'LlamaForCausalLM', hiddenSize: 36, headDim: 8});
    });
    expect(made).to.equal(0);
    const headerBytes = Number(new DataView(await weights.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
    expect(Math.max(...ranges)).to.equal(8 + headerBytes);
  });

  it('leaves alone what is not of the checkpoint, and weights that the index does not name', async () => {
    const files = sharded(() => {});
    const others = [
      new File(['# Tiny'], 'README.md'),
      jsonFile('generation_config.json', {}),
      jsonFile('tokenizer_config.json', {}),
      weightsFile('consolidated.safetensors', {w: zeros(2)}),
    ];
    const {weights} = await openCheckpoint([...others, ...files]);
    expect(weights.names()).to.have.members(Object.keys(tinyTensors()));
  });

  it('accepts a stored head that is tied, and the rotary buffers of early checkpoints', async () => {
    const files = filesWithTensors({
      'lm_head.weight': zeros(61, 36),
      'model.layers.0.self_attn.rotary_emb.inv_freq': zeros(4),
    });
    expect((await openCheckpoint(files)).config.tiedHead).to.equal(true);
  });
});
