import {expect} from 'chai';
import {chooseFiles, ggufModels} from '../../../runner/hub/choose_files';
import type {RepoAddress} from '../../../runner/hub/model_address';

const address: RepoAddress = {
  kind: 'repo',
  hub: 'https://huggingface.co',
  owner: 'owner',
  name: 'name',
  revision: 'main',
};

const listing = (...paths: string[]) => paths.map((path) => ({path, size: 1}));
const chosen = (paths: string[], file?: string) =>
  chooseFiles({...address, file}, listing(...paths)).map(({path}) => path);

const base = ['README.md', 'config.json', 'tokenizer.json'];

describe('the files of a repository that make up a model', () => {
  it('are its safetensors, the weights last, and no copies in other forms', () => {
    const others = ['generation_config.json', 'pytorch_model.bin', 'onnx/model.onnx', 'sub/config.json', 'x.gguf'];
    const found = chosen([...base, ...others, 'model.safetensors', 'tokenizer_config.json', 'chat_template.jinja']);
    expect(found).to.deep.equal([
      'config.json',
      'tokenizer.json',
      'tokenizer_config.json',
      'chat_template.jinja',
      'model.safetensors',
    ]);
  });

  it('are all shards, with their index', () => {
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    const index = 'model.safetensors.index.json';
    const found = chosen([...base, 'consolidated.safetensors', ...shards, index]);
    expect(found).to.deep.equal(['config.json', 'tokenizer.json', index, ...shards]);
  });

  it('are the one .gguf file, or the one of type Q4_K_M', () => {
    expect(chosen(['README.md', 'x-Q8_0.gguf'])).to.deep.equal(['x-Q8_0.gguf']);
    expect(chosen(['x-Q8_0.gguf', 'x-q4_k_m.gguf', 'x-f16.gguf'])).to.deep.equal(['x-q4_k_m.gguf']);
    expect(chosen(['mmproj-x-f16.gguf', 'x.imatrix.gguf', 'x.Q5_K_M.gguf'])).to.deep.equal(['x.Q5_K_M.gguf']);
  });

  it('are the file that was asked for, wherever it is', () => {
    expect(chosen(['x-Q8_0.gguf', 'sub/x-Q4_K_M.gguf'], 'x-Q8_0.gguf')).to.deep.equal(['x-Q8_0.gguf']);
    expect(chosen([...base, 'model.safetensors', 'sub/x.gguf'], 'sub/x.gguf')).to.deep.equal(['sub/x.gguf']);
  });

  it('can be chosen from a list', () => {
    const files = listing('a.gguf', 'b/c.gguf', 'mmproj.gguf', 'd-00001-of-00002.gguf', 'e.bin');
    expect(ggufModels(files).map(({path}) => path)).to.deep.equal(['a.gguf', 'b/c.gguf']);
  });

  const refused: Array<[what: string, paths: string[], file: string | undefined, message: RegExp]> = [
    ['no files', [], undefined, /^owner\/name: has no files; accepted: config\.json, tokenizer\.json and model/],
    [
      'weights of another form',
      [...base, 'model.bin'],
      undefined,
      /^owner\/name: has README\.md, .*model\.bin; accepted/,
    ],
    [
      'no config',
      ['model.safetensors', 'tokenizer.json'],
      undefined,
      /^owner\/name: has model\.safetensors, tokenizer\.json; accepted/,
    ],
    ['parts alone', ['x-00001-of-00002.gguf'], undefined, /its \.gguf files are parts of a model; accepted/],
    [
      'several that are as good',
      ['x-Q8_0.gguf', 'x-f16.gguf'],
      undefined,
      /^owner\/name: has several models; accepted: owner\/name\/FILE, where FILE is x-Q8_0\.gguf, x-f16\.gguf$/,
    ],
    ['another file', ['x-Q8_0.gguf'], 'y.gguf', /^owner\/name\/y\.gguf: is not there; accepted: x-Q8_0\.gguf$/],
  ];
  for (const [what, paths, file, message] of refused) {
    it(`are not ${what}`, () => {
      expect(() => chosen(paths, file)).to.throw(message);
    });
  }
});
