import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {ask} from '../../demo/ask/ask';
import {createTokenizer, type Session} from '../../demo/ask/session';
import {openCheckpoint} from '../../demo/llama/checkpoint';
import {LlamaModel} from '../../demo/llama/model';
import {buildNeedle} from '../../demo/needle';
import {describeBackends, fixture} from '../environment';
import {demoFiles} from './demo_checkpoint';

async function loadFixtures(backend: string, throwIfFailed: () => void): Promise<Session> {
  const checkpoint = await openCheckpoint(await demoFiles());
  return {
    backend: {name: backend, adapter: 'test', software: true, reason: 'test', throwIfFailed},
    model: await LlamaModel.load(checkpoint),
    tokenizer: createTokenizer(checkpoint.tokenizer),
    book: new TextDecoder().decode(await fixture('demo/public/books/dubliners.txt')),
  };
}

describeBackends('ask', (backend) => {
  let session: Session;
  let failure: Error | undefined;
  before(async function () {
    this.timeout(60_000);
    await tf.setBackend(backend);
    session = await loadFixtures(backend, () => {
      if (failure) throw failure;
    });
  });
  beforeEach(() => {
    failure = undefined;
  });
  after(() => session.model.dispose());

  it('answers right with exact and with PBS attention, and keeps part of the blocks', async function () {
    this.timeout(200_000);
    const needle = buildNeedle(session.tokenizer, session.book, {length: 128, depth: 0.2, seed: 4});
    const options = {blockSize: 16, segmentSize: 32, threshold: 0.9};
    const tensors = tf.memory().numTensors;
    const done: number[] = [];
    let exactFirst = false;
    const result = await ask(session, needle, options, {
      onStep: (_, share) => done.push(share),
      onExact: (run) => (exactFirst = run.correct),
    });
    expect(result).to.deep.include({backend, adapter: 'test', length: 128});
    expect(result.exact).to.include({answer: needle.answer, correct: true});
    expect(result.pbs).to.include({answer: needle.answer, correct: true});
    expect(result.exact.firstTokenMs).to.be.greaterThan(0);
    expect(result.pbs.firstTokenMs).to.be.greaterThan(0);
    expect(result.pbs.density).to.be.within(0.3, 0.99);
    expect(exactFirst).to.equal(true);
    expect(done, 'progress grows to 1').to.deep.equal([...done].sort((a, b) => a - b));
    expect(done.at(-1)).to.equal(1);
    expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensors);
  });

  // What no backend changes is shown on the quickest one: a prompt takes a software adapter half a minute.
  if (backend !== 'cpu') return;

  it('calls a wrong number wrong', async function () {
    this.timeout(200_000);
    const needle = buildNeedle(session.tokenizer, session.book, {length: 128, depth: 0.5, seed: 4});
    const {exact, pbs} = await ask(session, {...needle, answer: '10000'}, {});
    expect([exact.correct, pbs.correct]).to.deep.equal([false, false]);
    expect([exact.answer, pbs.answer]).to.deep.equal([needle.answer, needle.answer]);
  });

  it('fails when the device has reported an error', async function () {
    this.timeout(200_000);
    failure = new Error('the device was lost');
    const needle = buildNeedle(session.tokenizer, session.book, {length: 128, depth: 0.5, seed: 4});
    let message = '';
    await ask(session, needle, {}).catch((error: Error) => (message = error.message));
    expect(message).to.equal('the device was lost');
  });
});
