import {readFileSync} from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {Backend} from '../../../demo/backend';
import {Chat} from '../../../demo/engine/chat';
import {ChatWriter} from '../../../demo/engine/chat_prompt';
import type {ChatEvent, ChatRequest} from '../../../demo/engine/chat_protocol';
import {loadReader, type Reader} from '../../../demo/engine/load';
import {sparseFrom} from '../../../demo/engine/sparse_reading';
import {GREEDY} from '../../../runner/llama/sample';
import {decode} from '../../../runner/tokenizer';
import {jsonFile, tinyConfig, tinyTensors, writeSafetensors} from '../../runner/llama/tiny/random_checkpoint';

const read = (path: string) => readFileSync(new URL(`../../../demo/public/${path}`, import.meta.url), 'utf8');

const TEMPLATE =
  '{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';
/** As some of Mistral's do. */
const NO_SYSTEM = `{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}${TEMPLATE}`;

const book = read('books/dubliners.txt');

describe('a chat of the engine', () => {
  const backend = {backend: 'cpu', float16: 'none', software: true, throwIfFailed: () => {}} as unknown as Backend;
  const config = {...tinyConfig, vocab_size: 8192, max_position_embeddings: 2048};
  let reader: Reader;
  let chat: Chat;

  async function load(template?: string): Promise<void> {
    reader = await loadReader({
      files: [
        jsonFile('config.json', config),
        new File([read('model/tokenizer.json')], 'tokenizer.json'),
        new File([writeSafetensors(tinyTensors(config))], 'model.safetensors'),
        ...(template === undefined ? [] : [jsonFile('tokenizer_config.json', {chat_template: template})]),
      ],
    });
    chat = new Chat(backend, reader);
  }

  const request = (part: Partial<ChatRequest> = {}): ChatRequest => ({
    ...{system: 'Be brief.', document: '', turns: [{role: 'user', content: 'Who is it?'}]},
    ...{attention: 'exact', maxTokens: 6, sampling: GREEDY, warmUp: true},
    ...part,
  });

  before(() => tf.setBackend('cpu'));
  beforeEach(() => load(TEMPLATE));
  afterEach(() => {
    chat.forget();
    reader.model.dispose();
  });

  it('streams an answer, and reads of the next prompt only what is new', async () => {
    const events: ChatEvent[] = [];
    const document = book.slice(2000, 3000);
    const first = await chat.answer(request({document}), {onEvent: (event) => events.push(event)});
    expect(first).to.include({attention: 'exact', end: 'length', tokens: 6, reusedTokens: 0, compiled: false});
    expect(first.promptTokens).to.equal((await chat.count(request({document}))).prompt);
    expect(events.some((event) => event.type === 'text' && event.text !== '')).to.equal(true);
    const turns = [
      ...request().turns,
      {role: 'assistant' as const, content: first.text},
      {role: 'user' as const, content: 'And then?'},
    ];
    const {unread} = await chat.count(request({document, turns}));
    const second = await chat.answer(request({document, turns}));
    expect(unread).to.deep.equal({
      exact: second.promptTokens - second.reusedTokens,
      pbs: second.promptTokens,
    });
    expect(second.reusedTokens).to.be.within(first.promptTokens, second.promptTokens - 1);
    expect((await chat.answer(request({document, turns, attention: 'pbs'}))).reusedTokens).to.equal(0);
    const before = tf.memory().numTensors;
    chat.forget();
    expect(tf.memory().numTensors).to.be.lessThan(before);
    const anew = await chat.answer(request({document, turns}));
    expect(anew).to.include({reusedTokens: 0, text: second.text});
  });

  it('tells what sparse reading kept where it pays, and why it was exact where not', async () => {
    const tensors = tf.memory().numTensors;
    const from = sparseFrom(reader.model.config, 2048, 'float32')!;
    const {beginning} = chat.fit(request({document: book}), 2);
    const long = await chat.answer(request({attention: 'pbs', document: beginning, maxTokens: 2}));
    expect(long.promptTokens).to.be.greaterThan(from);
    expect(long.density).to.be.within(0.1, 0.999);
    expect(long.exactReason).to.equal(undefined);
    const short = await chat.answer(request({attention: 'pbs', document: book.slice(0, 2400), maxTokens: 2}));
    expect(short).to.include({exactReason: 'auto'}).and.not.have.property('density');
    chat.forget();
    expect(tf.memory().numTensors).to.equal(tensors);
  });

  it('reads once before the clock runs where times are compared, and forgets that', async () => {
    const steps: string[] = [];
    const onEvent = (event: ChatEvent) => event.type === 'progress' && steps.push(event.progress.step);
    const hardware = new Chat({...backend, software: false}, reader);
    for (const turns of [
      request().turns,
      [...request().turns, {role: 'assistant', content: 'He.'}, ...request().turns],
    ]) {
      const warm = await hardware.answer(request({turns: turns as ChatRequest['turns'], attention: 'pbs'}), {onEvent});
      const cold = await chat.answer(request({turns: turns as ChatRequest['turns'], attention: 'pbs'}));
      expect(warm.text).to.equal(cold.text);
      expect(warm.reusedTokens).to.equal(cold.reusedTokens);
    }
    expect(steps.filter((step, i) => step !== steps[i - 1])).to.deep.equal([
      ...['warm-up', 'prefill', 'write'],
      ...['warm-up', 'prefill', 'write'],
    ]);
    hardware.forget();
  });

  it('gives what is written where it is stopped, and goes on with it', async () => {
    const stopping = new AbortController();
    const onEvent = (event: ChatEvent) => event.type === 'text' && stopping.abort();
    const stopped = await chat.answer(request({maxTokens: 50}), {onEvent, signal: stopping.signal});
    expect(stopped).to.include({end: 'stopped', tokens: 1});
    expect((await chat.answer(request())).reusedTokens).to.equal(stopped.promptTokens - 1);
    const early = new AbortController();
    early.abort();
    const failure = await chat.answer(request(), {signal: early.signal}).catch((error: Error) => error);
    expect(failure).to.include({name: 'AbortError'});
  });

  it('says whether a document fits, and how much of it', async () => {
    const whole = chat.fit(request({document: book.slice(0, 3000)}), 256);
    expect(whole.tokens).to.be.lessThan(whole.room);
    expect(whole).not.to.have.property('beginning');
    const {tokens, room, isEstimate, beginning} = chat.fit(request({document: book}), 256);
    expect(isEstimate).to.equal(true);
    expect(tokens).to.be.within(60_000, 200_000);
    expect(book.startsWith(beginning!)).to.equal(true);
    const {prompt} = await chat.count(request({document: beginning}));
    expect(prompt).to.be.within(2048 - 256 - 20, 2048 - 256);
    expect(room).to.be.lessThan(2048 - 256);
    const failure = await chat.answer(request({document: book.slice(0, 12_000)})).catch((error: Error) => error);
    expect(failure).to.include({name: 'ContextTooLongError'});
    expect((failure as Error).message).to.match(/has \d+ tokens; accepted: at most 2047 of the 2048/);
    const huge = request({turns: [{role: 'user', content: '街'.repeat(2 ** 23)}]});
    const refused = await chat.answer(huge).catch((error: Error) => error);
    expect((refused as Error).message).to.match(/has about \d+ tokens; accepted: at most 2047 of the 2048/);
    expect((await chat.count(huge)).prompt).to.be.above(2 ** 23);
  });

  it('puts the document into the system message, and where a form has none before the first question', () => {
    const {system, turns} = request();
    const forms: Array<[template: string | undefined, written: string]> = [
      [TEMPLATE, '[system] Be brief.\n\nA document.\n[user] Who is it?\n[assistant]'],
      [NO_SYSTEM, '[user] Be brief.\n\nA document.\n\nWho is it?\n[assistant]'],
      // Of a model that only continues texts.
      [undefined, 'A document.\n\nWho is it?\n'],
    ];
    for (const [template, written] of forms) {
      const writer = new ChatWriter(reader.tokenizer, template === undefined ? undefined : {template});
      expect(decode(reader.tokenizer, writer.write({system, document: 'A document.', turns}))).to.equal(written);
    }
    const silent = new ChatWriter(reader.tokenizer, {template: TEMPLATE}).write({system: '', document: '', turns});
    expect(decode(reader.tokenizer, silent)).to.equal('[user] Who is it?\n[assistant]');
  });
});
