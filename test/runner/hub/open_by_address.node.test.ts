import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {openByAddress} from '../../../runner/hub/open_by_address';
import {openCheckpoint} from '../../../runner/llama/checkpoint';
import {LlamaModel} from '../../../runner/llama/model';
import {generate} from '../../../runner/llama/generate';
import {jsonFile, rejection} from '../llama/tiny/random_checkpoint';
import {checkpointFiles, expectedOf} from '../llama/tiny/transformers_checkpoint';
import {HubServer} from './hub_server';
import {someBytes, temporaryStore} from './temporary_store';

describe('models by address', () => {
  let server: HubServer;
  let kept: ReturnType<typeof temporaryStore>;

  beforeEach(async () => {
    server = await HubServer.open();
    kept = temporaryStore();
  });
  afterEach(() => {
    server.close();
    kept.remove();
  });

  const get = (address: string) => openByAddress(address, kept.store, {hub: server.url, backOffMs: [0, 0]});

  async function serve(files: File[]): Promise<void> {
    for (const file of files) {
      const large = file.name.endsWith('.safetensors');
      server.files.set(`owner/name/${file.name}`, {bytes: new Uint8Array(await file.arrayBuffer()), large});
    }
  }

  it('are computed as transformers computes them, with their form of chats', async () => {
    await tf.setBackend('cpu');
    await serve([
      ...(await checkpointFiles('qwen2')),
      jsonFile('tokenizer_config.json', {
        chat_template: '{{ bos_token }}',
        bos_token: {content: '<s>'},
        eos_token: null,
      }),
    ]);
    server.files.get('owner/name/model.safetensors')!.cuts = [1000, 5000, 5001];
    const checkpoint = await openCheckpoint(await get('owner/name'));
    expect(checkpoint.chat).to.deep.equal({template: '{{ bos_token }}', bosToken: '<s>', eosToken: undefined});
    const {ids, greedy} = await expectedOf('qwen2');
    const model = await LlamaModel.load(checkpoint);
    try {
      const {tokens} = await generate(model, ids, {maxTokens: greedy.length});
      expect(tokens).to.deep.equal(greedy);
    } finally {
      model.dispose();
    }
  });

  it('are refused before their weights are downloaded, where they cannot be computed', async () => {
    const files = (await checkpointFiles('qwen2')).filter(({name}) => name !== 'config.json');
    await serve([...files, jsonFile('config.json', {architectures: ['GemmaForCausalLM']})]);
    const error = await get('owner/name').then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error).to.include({name: 'CheckpointError'});
    expect(error!.message).to.match(/^config\.json: architectures is \["GemmaForCausalLM"\]; accepted/);
    expect(server.requests.filter(({path}) => path.endsWith('model.safetensors'))).to.deep.equal([]);
  });

  it('share what is stored under all their addresses', async () => {
    server.files.set('owner/name/x-Q4_K_M.gguf', {bytes: someBytes(1000)});
    server.files.set('owner/name/x-Q8_0.gguf', {bytes: someBytes(2000)});
    await get('owner/name');
    await get('owner/name/x-Q4_K_M.gguf');
    expect(server.rangesOf('owner/name/x-Q4_K_M.gguf')).to.have.length(1);
    await get('owner/name/x-Q8_0.gguf');
    const models = await kept.store.list();
    expect(models.map(({bytes}) => bytes)).to.deep.equal([1000, 2000]);
    const asked = server.requests.length;
    await get('owner/name');
    expect(server.requests.length, 'without a network').to.equal(asked);
  });

  it('are completed where a stored file is gone or cut', async () => {
    server.files.set('owner/name/x.gguf', {bytes: someBytes(1000)});
    const [file] = await get('owner/name');
    await kept.store.use((await kept.store.list())[0].id, (folder) => folder.remove(file.name));
    expect((await kept.store.list())[0]).to.include({complete: false, bytes: 0});
    const [again] = await get('owner/name');
    expect(new Uint8Array(await again.slice(0, again.size).arrayBuffer())).to.deep.equal(someBytes(1000));
  });

  const refused: Array<[what: string, listStatus: number, message: RegExp]> = [
    ['is not there', 200, /\/api\/models\/owner\/name\/.*answered 404: owner\/name, revision main, is not there/],
    [
      'is private, gated or not there',
      401,
      /answered 401: owner\/name, revision main, is private or gated, or does not/,
    ],
    ['cannot be listed now', 500, /answered 500; accepted: 200/],
  ];
  for (const [what, listStatus, message] of refused) {
    it(`say that a repository ${what}`, async () => {
      server.listStatus = listStatus;
      expect(await rejection(get('owner/name'))).to.match(message);
      expect(await kept.store.list()).to.deep.equal([]);
    });
  }

  it('say that a hub is no hub', async () => {
    const {url} = server;
    const other = openByAddress('owner/name', kept.store, {hub: `${url}/nothing`});
    expect(await rejection(other)).to.match(/\/nothing\/api\/models\/owner\/name.*404/);
  });
});
