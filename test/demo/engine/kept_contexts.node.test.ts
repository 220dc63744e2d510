import {readdirSync, readFileSync, truncateSync} from 'node:fs';
import {join} from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {Backend} from '../../../demo/backend';
import {Chat} from '../../../demo/engine/chat';
import type {ChatEvent, ChatRequest} from '../../../demo/engine/chat_protocol';
import {KeptContexts} from '../../../demo/engine/kept_contexts';
import {loadReader, type Reader} from '../../../demo/engine/load';
import {GREEDY} from '../../../runner/llama/sample';
import {temporaryStore} from '../../runner/hub/temporary_store';
import {jsonFile, tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';

const read = (path: string) => readFileSync(new URL(`../../../demo/public/${path}`, import.meta.url), 'utf8');

const TEMPLATE =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';

describe('what a chat has read, kept in a store', () => {
  const backend = {backend: 'cpu', float16: 'none', software: true, throwIfFailed: () => {}} as unknown as Backend;
  const config = {...tinyConfig, vocab_size: 8192, max_position_embeddings: 2048};
  const files = [
    jsonFile('config.json', config),
    new File([read('model/tokenizer.json')], 'tokenizer.json'),
    new File([writeSafetensors(tinyTensors(config))], 'model.safetensors'),
    jsonFile('tokenizer_config.json', {chat_template: TEMPLATE}),
  ];
  const document = read('books/dubliners.txt').slice(2000, 3000);
  let reader: Reader;
  let chat: Chat;
  let folder: ReturnType<typeof temporaryStore>;
  let kept: KeptContexts;

  before(async () => {
    await tf.setBackend('cpu');
    reader = await loadReader({files});
  });
  after(() => reader.model.dispose());
  beforeEach(() => {
    folder = temporaryStore();
    kept = new KeptContexts(folder.store);
    chat = new Chat(backend, reader, kept);
  });
  afterEach(() => {
    chat.forget();
    folder.remove();
  });

  const request = (part: Partial<ChatRequest> = {}): ChatRequest => ({
    ...{system: 'Be brief.', document, turns: [{role: 'user', content: 'Who is it?'}]},
    ...{attention: 'exact', maxTokens: 6, sampling: GREEDY, warmUp: false},
    ...part,
  });
  const keeping = (part: Partial<ChatRequest> = {}) => request({keep: true, keptAs: 'what was read of it', ...part});
  const asking = (content: string) => ({turns: [{role: 'user' as const, content}]});
  const fileOf = (id: string) => join(folder.store.path, id, 'context');

  it('comes back another day, for another question', async () => {
    const before = tf.memory().numTensors;
    const events: ChatEvent[] = [];
    const first = await chat.answer(keeping(), {onEvent: (event) => events.push(event)});
    expect(first).to.include({reusedTokens: 0}).and.not.have.any.keys('storedTokens', 'notKept', 'notRestored');
    const [stored, ...others] = await kept.list();
    expect(others).to.deep.equal([]);
    expect(stored).to.include({name: 'what was read of it', complete: true, bytes: first.keptBytes});
    expect(
      events.filter(({type}) => type === 'storage').map((event) => 'layersDone' in event && event.layersDone),
    ).to.deep.equal([1, 2]);
    // Once.
    expect(await chat.answer(keeping(asking('And why?')))).not.to.have.any.keys('keptBytes', 'notKept');

    chat.forget();
    const without = new Chat(backend, reader);
    const expected = await without.answer(request(asking('Where?')));
    without.forget();
    const later = new Chat(backend, reader, kept);
    const {unread, prompt, document: documentTokens} = await later.count(request(asking('Where?')));
    const answer = await later.answer(request(asking('Where?')));
    expect(answer.text).to.equal(expected.text);
    // The document, with what stands before it, and nothing that was asked.
    expect(answer.storedTokens).to.equal(answer.reusedTokens);
    expect(answer.storedTokens).to.be.within(documentTokens, first.promptTokens - 5);
    expect(unread).to.deep.equal({exact: prompt - answer.storedTokens!, pbs: prompt});
    // Now it is in memory.
    const second = await later.answer(request(asking('When?')));
    expect(second.reusedTokens).to.be.at.least(answer.storedTokens!);
    expect(second).not.to.have.property('storedTokens');
    later.forget();
    expect(tf.memory().numTensors).to.equal(before);
  });

  it('is that of one model, attention, precision, system prompt and document alone', async () => {
    await chat.answer(keeping());
    const anew = async (part: Partial<ChatRequest>, other: Partial<Reader> = {}, machine = backend) => {
      const later = new Chat(machine, {...reader, ...other}, kept);
      const {storedTokens, reusedTokens} = await later.answer(request(part));
      later.forget();
      expect([storedTokens, reusedTokens]).to.deep.equal([undefined, 0]);
    };
    await anew({attention: 'pbs'});
    await anew({system: 'Be long.'});
    await anew({document: `${document} More.`});
    await anew({document: ''});
    await anew({}, {identity: 'another model'});
    await anew({}, {identity: undefined});
    await anew({}, {}, {...backend, float16: 'matrix units'} as Backend);
    chat.forget();
    expect((await chat.answer(request())).storedTokens).to.be.greaterThan(100);
  });

  it('takes the place of another document in memory', async () => {
    await chat.answer(keeping());
    await chat.answer(request({document: 'It rains.'}));
    expect((await chat.answer(request())).storedTokens).to.be.greaterThan(100);
  });

  it('is read anew where the file is broken, which goes', async () => {
    const first = await chat.answer(keeping());
    chat.forget();
    const [{id}] = await kept.list();
    // As long as its list says, and of other bytes.
    const bytes = readFileSync(fileOf(id)).length;
    truncateSync(fileOf(id), bytes - 1);
    expect((await kept.list())[0].complete).to.equal(false);
    // What is not whole is not looked at.
    expect(await chat.answer(request())).not.to.have.any.keys('storedTokens', 'notRestored');
    chat.forget();
    truncateSync(fileOf(id), 0);
    truncateSync(fileOf(id), bytes);
    const tensors = tf.memory().numTensors;
    const answer = await chat.answer(request());
    expect(answer.notRestored).to.match(/context: magic is /);
    expect(answer).to.include({reusedTokens: 0, text: first.text});
    expect(await kept.list()).to.deep.equal([]);
    chat.forget();
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('is written over what was cut off', async () => {
    const {keptBytes} = await chat.answer(keeping());
    const [{id}] = await kept.list();
    truncateSync(fileOf(id), 100);
    await folder.store.use(id, async (model) => {
      const manifest = (await model.readManifest())!;
      await model.writeManifest({...manifest, files: manifest.files.map((file) => ({...file, complete: false}))});
    });
    expect(await chat.answer(keeping())).to.include({keptBytes});
    expect((await kept.list())[0].complete).to.equal(true);
  });

  it('without room the answer is there all the same, and nothing half-written', async () => {
    folder.store.room = async () => 1000;
    const answer = await chat.answer(keeping());
    expect(answer.notKept).to.match(/^what was read of it: [\d.]+ MB are to be stored and 0\.0 MB are free/);
    expect(answer.tokens).to.equal(6);
    expect(readdirSync(folder.store.path)).to.deep.equal([]);
    // As a browser says it while it writes.
    const full = temporaryStore();
    const use = full.store.use.bind(full.store);
    full.store.use = (id, run) =>
      use(id, (model) => {
        const write = () => Promise.reject(new DOMException('no room', 'QuotaExceededError'));
        const append = async () => ({write, close: async () => {}});
        return run(Object.assign(model, {append}));
      });
    const unlucky = new Chat(backend, reader, new KeptContexts(full.store));
    const second = await unlucky.answer(keeping());
    expect(second).to.include({notKept: 'no room', text: answer.text});
    expect(await full.store.list()).to.deep.equal([]);
    unlucky.forget();
    full.remove();
  });

  it('stops while it is written or read', async () => {
    const stopping = (step: string) => {
      const stop = new AbortController();
      const onEvent = (event: ChatEvent) => event.type === 'storage' && event.step === step && stop.abort();
      return {onEvent, signal: stop.signal};
    };
    const answer = await chat.answer(keeping(), stopping('keep'));
    expect(answer).to.include({end: 'length', notKept: 'it was stopped'});
    expect(await kept.list()).to.deep.equal([]);
    await chat.answer(keeping());
    chat.forget();
    const failure = await chat.answer(request(), stopping('restore')).catch((error: Error) => error);
    expect(failure).to.include({name: 'AbortError'});
    expect(await kept.list()).to.have.length(1);
    expect((await chat.answer(request())).storedTokens).to.be.greaterThan(100);
  });

  it('says that nothing is kept where there is no store', async () => {
    const without = new Chat(backend, reader);
    expect((await without.answer(keeping())).notKept).to.equal('there is no storage for this model');
    without.forget();
  });
});
