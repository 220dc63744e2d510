import {expect} from 'chai';
import type {Answer, RunResult} from '../../../demo/engine/protocol';
import {
  describeAnswers,
  describeLoading,
  describeModel,
  describeProgress,
  describeSpeedUp,
  formatDuration,
  formatPercent,
  formatTimeLeft,
} from '../../../demo/page/format';

describe('words and numbers of the page', () => {
  it('durations have three digits', () => {
    expect([0.1234, 77.94, 999.4, 999.6, 1234, 74_960, 213_400, 1_234_567].map(formatDuration)).to.deep.equal([
      '0.123 ms',
      '77.9 ms',
      '999 ms',
      '1.00 s',
      '1.23 s',
      '75.0 s',
      '213 s',
      '1,235 s',
    ]);
  });

  it('percentages never round to nothing or all', () => {
    expect([0, 0.001, 0.214, 0.999, 1].map(formatPercent)).to.deep.equal(['0%', 'under 1%', '21%', 'over 99%', '100%']);
  });

  it('time left is no more exact than it can be', () => {
    expect([0.3, 4.4, 89, 150].map(formatTimeLeft)).to.deep.equal([
      'under a second left',
      'about 4 s left',
      'about 89 s left',
      'about 3 min left',
    ]);
  });

  it('progress has layers while reading, and leaves out what is not known', () => {
    const progress = {attention: 'exact', layersDone: 3, layers: 8, done: 0.2} as const;
    expect(describeProgress({...progress, step: 'prefill', tokensPerSecond: 5123.4, secondsLeft: 4})).to.equal(
      'Exact attention: reading · layer 3 of 8 · 5,123 tokens a second · about 4 s left',
    );
    expect(describeProgress({...progress, step: 'warm-up', tokensPerSecond: 0})).to.equal(
      'Exact attention: warming up · layer 3 of 8',
    );
    expect(describeProgress({...progress, attention: 'pbs', step: 'write', tokensPerSecond: 0})).to.equal(
      'PBS attention: writing',
    );
  });

  it('loading counts bytes, then tensors', () => {
    expect(describeLoading({step: 'download', done: 1.5e6, total: 16e6})).to.equal('1.5 of 16.0 MB read');
    expect(describeLoading({step: 'upload', done: 3, total: 74})).to.equal('3 of 74 tensors on the backend');
  });

  it('a model is named with its size', () => {
    const model = {layers: 8, heads: 4, headDim: 64, maxLength: 16_384};
    expect(describeModel({...model, architecture: 'LlamaForCausalLM', parameters: 7.99e6, keyValueHeads: 2})).to.equal(
      'LlamaForCausalLM: 7.99 million parameters, 8 layers, 4 heads of 64, 2 for keys and values; ' +
        'reads up to 16,384 tokens.',
    );
    expect(describeModel({...model, architecture: 'Qwen2ForCausalLM', parameters: 1.54e9, keyValueHeads: 4})).to.match(
      /1\.54 billion parameters, 8 layers, 4 heads of 64; reads/,
    );
  });

  const answer = (firstTokenMs: number, correct?: boolean): Answer => ({text: ' 1', firstTokenMs, tokens: 5, correct});
  const result = (exact: Answer, pbs: Answer): RunResult => ({
    task: 'find',
    length: 4096,
    exact,
    pbs,
    kept: {density: 0.21, heads: [], factBlocks: []},
  });

  it('the speed-up is one sentence, whichever is faster', () => {
    expect(describeSpeedUp(result(answer(80), answer(40)))).to.equal(
      'PBS attention reached the first token 2.00 times as fast: 40.0 ms instead of 80.0 ms, at 4,096 tokens, with 21% of the blocks.',
    );
    expect(describeSpeedUp(result(answer(40), answer(60)))).to.match(/^PBS attention took 1\.50 times as long/);
    expect(describeSpeedUp(result(answer(40), answer(40.1)))).to.match(/^PBS attention took as long as exact/);
  });

  it('the end of a run says which answers are right', () => {
    expect(describeAnswers(result(answer(1, true), answer(1, true)))).to.equal('Done: both answers are right.');
    expect(describeAnswers(result(answer(1, true), answer(1, false)))).to.equal(
      'Done: exact attention is right, PBS attention is wrong.',
    );
    expect(describeAnswers(result(answer(1), answer(1)))).to.equal('Done.');
  });
});
