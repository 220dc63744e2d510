import {expect} from 'chai';
import type {ChatAnswer, ModelInfo} from '../../../../demo/engine/protocol';
import {ChatLog} from '../../../../demo/page/chat/chat_log';
import {describeAnswer, describeContext, describeGain} from '../../../../demo/page/chat/chat_words';
import {KNOWN_MODELS} from '../../../../demo/page/known_models';
import {describeFit, describeKnown, expectedMemory} from '../../../../demo/page/memory_words';
import {hasFactSettings} from '../../../../demo/page/settings';

const answer: ChatAnswer = {
  ...{attention: 'pbs', text: 'At nine.', end: 'model', tokens: 3},
  ...{promptTokens: 16_412, reusedTokens: 16_384, firstTokenMs: 1203, compiled: false},
};
const model = {contextLength: 8192, contextLimit: 'model', weightBytes: 103e6, cacheBytesPerToken: 23_040} as ModelInfo;

describe('words of the chat', () => {
  it('tell of an answer what it took', () => {
    expect(describeAnswer(answer)).to.deep.equal([
      'First token after 1.20 s',
      '16,384 of 16,412 tokens of prompt were still there',
    ]);
    expect(describeAnswer({...answer, storedTokens: 16_384, notRestored: 'it is broken'}).slice(1)).to.deep.equal([
      "16,384 of 16,412 tokens of prompt came from this browser's storage",
      'what was kept could not be used and is deleted: it is broken',
    ]);
    expect(describeAnswer({...answer, keptBytes: 207e6}).at(-1)).to.equal(
      'what was read is kept in this browser, 207 MB',
    );
    expect(describeAnswer({...answer, notKept: 'no space'}).at(-1)).to.equal('what was read was not kept: no space');
    const first = {
      ...answer,
      reusedTokens: 0,
      compiled: true,
      density: 0.314,
      tokensPerSecond: 41.7,
      end: 'stopped',
    } as const;
    expect(describeAnswer(first)).to.deep.equal([
      'First token after 1.20 s, compiling of shaders included',
      '16,412 tokens of prompt read',
      '31% of the blocks kept',
      '42 tokens a second',
      'stopped after 3 tokens',
    ]);
    expect(describeAnswer({...answer, exactReason: 'auto'}).at(-1)).to.equal(
      'read exactly: for 28 tokens sparse attention is not expected to be faster',
    );
  });

  it('tell from which length sparse attention gains, and whether the prompt is that long', () => {
    const gains = {...model, sparseFrom: 2944};
    expect(describeGain(gains, 'pbs', undefined)).to.include('from about 2,944 tokens on (an estimate)');
    expect(describeGain(gains, 'pbs', undefined)).to.match(/^On this class of device, sparse/);
    const calibrated = {calibrated: '2026-11-29T12:00:00.000Z'};
    expect(describeGain(gains, 'pbs', undefined, calibrated)).to.match(/^By the measurement of this device, sparse/);
    expect(describeGain(gains, 'both', 300)).to.match(/Now 300 tokens are to be read, exactly on both sides\.$/);
    expect(describeGain(gains, 'pbs', 4000)).to.match(/Now 4,000 tokens are to be read\.$/);
    expect(describeGain(model, 'pbs', 300)).to.include('not expected to be faster with this model at any length');
  });

  it('tell what of the context is taken, also where it is full', () => {
    const count = {prompt: 1000, document: 900, unread: {exact: 1000, pbs: 1000}};
    expect(describeContext(count, 256, 8192)).to.deep.equal({
      used: 1256,
      words: '1,256 of 8,192 tokens: document 900, the rest 100, room for the answer 256.',
      isFull: false,
    });
    expect(describeContext(count, 256, 1100).words).to.match(/room for the answer 100, less than the 256 chosen\.$/);
    expect(describeContext(count, 256, 1000)).to.include({isFull: true, used: 1000});
  });

  it('tell what a model takes, before and after it is loaded', () => {
    const [smol] = KNOWN_MODELS;
    expect(expectedMemory(smol, 'webgpu')).to.equal(105e6 + 8192 * 23_040);
    expect(describeKnown(smol, 'webgpu', false)).to.equal(
      'SmolLM2 135M Instruct: 105 MB to download, once; Apache-2.0; about 294 MB of memory with 8,192 tokens of context',
    );
    expect(describeKnown(smol, 'webgpu', true)).to.include(': in your storage;');
    expect(describeFit(model, undefined)).to.equal(
      'Memory: 103 MB for the model, and up to 189 MB for a context of 8,192 tokens (23 MB for 1,000); side by side takes two.',
    );
    expect(describeFit(model, 16)).to.match(/This machine has 16 GiB or more; .* do not say\.$/);
    expect(describeFit(model, 0.5)).to.match(/That is tight: keep to shorter contexts\.$/);
  });
});

describe('the log of a chat', () => {
  it('goes on from the sparse answer, and leaves out a question that is asked again', () => {
    const log = new ChatLog();
    const first = log.add('Who?');
    first.answers = {exact: {...answer, text: 'She.'}, pbs: {...answer, text: 'He.'}};
    const second = log.add('Why?');
    expect(log.turns(second)).to.deep.equal([
      {role: 'user', content: 'Who?'},
      {role: 'assistant', content: 'He.'},
    ]);
    second.answers = {exact: {...answer, text: 'Because.'}};
    expect(log.turns().at(-1)).to.deep.equal({role: 'assistant', content: 'Because.'});
    log.removeLast();
    expect(log.last).to.equal(first);
    log.clear();
    expect(log.isEmpty).to.equal(true);
  });
});

describe('the view of an address', () => {
  it('is that of a fact if some of its settings are there', () => {
    const has = (query: string) => hasFactSettings(new URLSearchParams(query));
    expect(['', 'backend=cpu', 'from=elsewhere'].map(has)).to.deep.equal([false, false, false]);
    expect(['length=512', 'backend=cpu&task=find', 'fact=x', 'ask=2'].map(has)).to.deep.equal([true, true, true, true]);
  });
});
