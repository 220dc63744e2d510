import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {BackendName} from '../../../../demo/backend_names';
import {promptOf} from '../../../../demo/engine/prompt';
import type {RunEvent, RunProgress} from '../../../../demo/engine/protocol';
import {runBoth, type RunSettings, type Session} from '../../../../demo/engine/run';
import {Failure} from '../../../../runner/failure';
import {openCheckpoint} from '../../../../runner/llama/checkpoint';
import {LlamaModel} from '../../../../runner/llama/model';
import {GREEDY} from '../../../../runner/llama/sample';
import {buildNeedle} from '../../../../demo/needle';
import {createTokenizer, encode} from '../../../../runner/tokenizer';
import {describeBackends, fixture} from '../../../setup/environment';
import {demoFiles} from './demo_checkpoint';

// In browsers the page's tests run it whole.
describeBackends('a run with both ways of attending', (backend) => {
  let session: Session;
  let book: string;
  let failure: Error | undefined;
  before(async function () {
    this.timeout(60_000);
    await tf.setBackend(backend);
    const checkpoint = await openCheckpoint(await demoFiles());
    const throwIfFailed = () => {
      if (failure) throw failure;
    };
    session = {
      backend: {
        ...{
          backend: backend as BackendName,
          adapter: 'test',
          software: true,
          features: [],
          reason: 'test',
          float16: 'none',
        },
        throwIfFailed,
      },
      model: await LlamaModel.load(checkpoint),
      tokenizer: createTokenizer(checkpoint.tokenizer),
    };
    book = new TextDecoder().decode(await fixture('demo/public/books/dubliners.txt'));
  });
  beforeEach(() => {
    failure = undefined;
  });
  after(() => session.model.dispose());

  const prompt = (depth: number) => promptOf(buildNeedle(session.tokenizer, book, {length: 128, depth, seed: 4}));
  const settings: RunSettings = {
    options: {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.9},
    maxTokens: 8,
    sampling: GREEDY,
  };

  it('answers right, says how far it is, and what it kept', async function () {
    this.timeout(200_000);
    const tensors = tf.memory().numTensors;
    const events: RunEvent[] = [];
    const asked = prompt(0.2);
    const {result, blocks} = await runBoth(session, asked, settings, {onEvent: (event) => events.push(event)});
    expect(result).to.include({task: 'find', length: 128});
    for (const answer of [result.exact, result.pbs]) {
      expect(answer).to.include({answer: asked.answer, correct: true});
      expect(answer.firstTokenMs).to.be.greaterThan(0);
      expect(answer.tokensPerSecond).to.be.greaterThan(0);
      expect(answer.text.trim()).to.match(new RegExp(`^${asked.answer}`));
    }
    checkEvents(events, result.exact.text);

    const {layers, heads} = session.model.config;
    expect(result.kept.heads.map((layer) => layer.length)).to.deep.equal(Array(layers).fill(heads));
    expect(result.kept.density).to.be.within(0.3, 0.99);
    const mean = result.kept.heads.flat().reduce((sum, density) => sum + density / (layers * heads), 0);
    expect(result.kept.density).to.be.closeTo(mean, 1e-6);

    const picture = blocks.picture(2, 1);
    expect(picture).to.include({queryBlocks: 8, keyBlocks: 16, blockSize: 16, keyBlockSize: 8, segmentSize: 32});
    expect(picture.permuted.density).to.equal(result.kept.heads[2][1]);
    expect(picture.unpermuted.kept).to.have.lengthOf(8 * 16);
    expect(picture.question.at(-1), 'the question ends the prompt').to.equal(7);
    const segments = (found: number[]) => [...new Set(found.map((block) => Math.floor(block / 4)))];
    const {needle} = picture.unpermuted;
    expect(needle).to.include(Math.floor(asked.fact!.start / 8));
    expect(segments(picture.permuted.needle), 'keys stay in their segment').to.deep.equal(segments(needle));
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensors);
  });

  function checkEvents(events: RunEvent[], exactText: string): void {
    const progress = events.flatMap((event) => (event.type === 'progress' ? [event.progress] : []));
    const done = progress.map((one) => one.done);
    expect(done, 'progress grows').to.deep.equal([...done].sort((a, b) => a - b));
    expect(done.at(-1)).to.be.closeTo(1, 1e-9);
    // The processor has no warm-up; on a graphics processor the prefill after it is over too soon to be followed.
    const followed = backend === 'cpu' ? 'prefill' : 'warm-up';
    const read = ({attention, step}: RunProgress) => attention === 'pbs' && step === followed;
    const {layers} = session.model.config;
    const layersDone = progress.filter(read).map((one) => one.layersDone);
    expect(layersDone, 'every layer').to.deep.equal(Array.from({length: layers + 1}, (_, layer) => layer));
    expect(progress.filter(read).at(-1)!.tokensPerSecond).to.be.greaterThan(0);
    const answers = events.flatMap((event) => (event.type === 'answer' ? [event.attention] : []));
    expect(answers).to.deep.equal(['exact', 'pbs']);
    const texts = events.flatMap((event) => (event.type === 'text' && event.attention === 'exact' ? [event.text] : []));
    expect(texts.at(-1)).to.equal(exactText);
    expect(texts.length).to.be.greaterThan(1);
  }

  it('stops when it is told to, and leaves nothing behind', async function () {
    this.timeout(200_000);
    const tensors = tf.memory().numTensors;
    const controller = new AbortController();
    const stopped = await runBoth(session, prompt(0.5), settings, {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'progress' && event.progress.layersDone === 2) controller.abort();
      },
    }).catch((error: Error) => error);
    expect(stopped).to.have.property('name', 'AbortError');
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensors);
  });

  // What no backend changes is shown on the quickest one: a prompt takes a software adapter half a minute.
  if (backend !== 'cpu') return;

  it('takes an answer that ends before its first token', async function () {
    this.timeout(200_000);
    const asked = prompt(0.5);
    const endTokens = encode(session.tokenizer, ` ${asked.answer}`).slice(0, 1);
    const model = Object.create(session.model, {config: {value: {...session.model.config, endTokens}}}) as LlamaModel;
    const {exact, pbs} = (await runBoth({...session, model}, asked, settings)).result;
    for (const answer of [exact, pbs]) expect(answer).to.include({text: '', answer: '', correct: false, tokens: 0});
  });

  it('calls a wrong number wrong', async function () {
    this.timeout(200_000);
    const asked = prompt(0.5);
    const {exact, pbs} = (await runBoth(session, {...asked, answer: '10000'}, settings)).result;
    expect([exact.correct, pbs.correct]).to.deep.equal([false, false]);
    expect([exact.answer, pbs.answer]).to.deep.equal([asked.answer, asked.answer]);
  });

  it('continues a text that asks nothing', async function () {
    this.timeout(200_000);
    const {ids} = prompt(0.5);
    const request = {...settings, maxTokens: 3, sampling: {temperature: 0.8, topP: 0.9, seed: 1}};
    const {result, blocks} = await runBoth(session, {ids: ids.slice(0, 64)}, request);
    expect(result).to.include({task: 'continue', length: 64});
    expect(result.exact).to.include({tokens: 3}).and.not.have.any.keys('answer', 'correct');
    expect(blocks.picture(0, 0)).to.deep.include({question: []});
  });

  it('fails when the device has reported an error', async function () {
    this.timeout(200_000);
    failure = new Failure('DeviceLostError', 'the device was lost');
    const stopped = await runBoth(session, prompt(0.5), settings).catch((error: Error) => error);
    expect(stopped).to.equal(failure);
  });
});
