import {expect} from 'chai';
import {formatModelAddress, parseModelAddress} from '../../../runner/hub/model_address';

const HUB = 'https://huggingface.co';
const repo = {kind: 'repo', hub: HUB, owner: 'owner', name: 'A-model.v1', revision: 'main'};

describe('addresses of models', () => {
  const read: Array<[typed: string, address: object, formatted?: string]> = [
    ['owner/A-model.v1', repo],
    [' owner/A-model.v1\n', repo, 'owner/A-model.v1'],
    ['owner/A-model.v1@v2.0', {...repo, revision: 'v2.0'}],
    ['owner/A-model.v1/x.gguf', {...repo, file: 'x.gguf'}],
    ['owner/A-model.v1@v2/sub/x.gguf', {...repo, revision: 'v2', file: 'sub/x.gguf'}],
    [`${HUB}/owner/A-model.v1`, repo, 'owner/A-model.v1'],
    [`${HUB}/owner/A-model.v1/`, repo, 'owner/A-model.v1'],
    [`${HUB}/owner/A-model.v1/tree/v2`, {...repo, revision: 'v2'}, 'owner/A-model.v1@v2'],
    [`${HUB}/owner/A-model.v1/blob/main/x.gguf`, {...repo, file: 'x.gguf'}, 'owner/A-model.v1/x.gguf'],
    [`${HUB}/owner/A-model.v1/resolve/main/x.gguf?download=true`, {...repo, file: 'x.gguf'}, 'owner/A-model.v1/x.gguf'],
    [
      `${HUB}/owner/A-model.v1/resolve/refs%2Fpr%2F1/a%20b.gguf`,
      {...repo, revision: 'refs/pr/1', file: 'a b.gguf'},
      'owner/A-model.v1@refs%2Fpr%2F1/a b.gguf',
    ],
    ['https://host.example/models/x.gguf', {kind: 'file', url: 'https://host.example/models/x.gguf'}],
    [
      'https://host.example/x.gguf?key=1#part',
      {kind: 'file', url: 'https://host.example/x.gguf?key=1'},
      'https://host.example/x.gguf?key=1',
    ],
    ['http://localhost:8080/x.gguf', {kind: 'file', url: 'http://localhost:8080/x.gguf'}],
  ];
  for (const [typed, address, formatted = typed] of read) {
    it(`reads ${JSON.stringify(typed)}`, () => {
      const parsed = parseModelAddress(typed);
      expect(parsed).to.deep.equal(address);
      expect(formatModelAddress(parsed)).to.equal(formatted);
      expect(parseModelAddress(formatted), 'what it is written as').to.deep.equal(address);
    });
  }

  it('reads names and pages by another hub, and pages of Hugging Face beside it', () => {
    const hub = 'http://localhost:8080/mirror';
    const own = {...repo, hub};
    expect(parseModelAddress('owner/A-model.v1', `${hub}/`)).to.deep.equal(own);
    expect(parseModelAddress(`${hub}/owner/A-model.v1/tree/v2`, hub)).to.deep.equal({...own, revision: 'v2'});
    expect(parseModelAddress(`${HUB}/owner/A-model.v1`, hub)).to.deep.equal(repo);
    expect(formatModelAddress(parseModelAddress('owner/A-model.v1', hub))).to.equal(`${hub}/owner/A-model.v1`);
  });

  const refused: Array<[typed: string, message: RegExp]> = [
    ['', /^"" is no address of a model; accepted: owner\/name, /],
    ['gpt2', /is no address of a model; accepted: owner\/name/],
    ['models/x.gguf', /is no address of a model/],
    ['../secret/x.gguf', /is no address of a model/],
    ['owner/name/../x.gguf', /is no \.gguf file and no repository/],
    ['owner/name@a@b', /is no address of a model/],
    ['owner/name/model.safetensors', /is no \.gguf file and no repository/],
    ['owner/name/x-00002-of-00003.gguf', /is one of several files of a model; accepted: a model in one \.gguf file/],
    ['https://', /is no address; accepted/],
    ['https://host.example/owner/name', /is no \.gguf file and no repository/],
    ['https://user:word@host.example/x.gguf', /has a user name or password in it/],
    [`${HUB}/owner/name/discussions/1`, /is no \.gguf file and no repository/],
    ['ftp://host.example/x.gguf', /is no address of a model/],
  ];
  for (const [typed, message] of refused) {
    it(`refuses ${JSON.stringify(typed)}`, () => {
      expect(() => parseModelAddress(typed)).to.throw(message);
    });
  }

  it('refuses a hub that is no address', () => {
    expect(() => parseModelAddress('owner/name', 'hub')).to.throw(/^hub is "hub"; accepted: /);
  });
});
