import {expect} from 'chai';
import type {FailureName} from '../../../runner/failure';
import {CRASH, describeFailure, endsEngine, type FailureContext} from '../../../demo/page/failures';

const context: FailureContext = {backend: 'webgpu', shorter: 2048, hasModel: false, view: 'fact'};

function failureOf(name: string, part: Partial<FailureContext> = {}) {
  return describeFailure(Object.assign(new Error('what came'), {name}), {...context, ...part});
}

function actionsOf(name: string, part?: Partial<FailureContext>) {
  return failureOf(name, part)!.recoveries.map(({action}) => action);
}

describe('describeFailure', () => {
  const expected: Record<Exclude<FailureName, 'AbortError'>, string[]> = {
    BackendError: ['switch backend', 'switch backend'],
    DeviceLostError: ['restart', 'shorten', 'switch backend'],
    OutOfMemoryError: ['shorten', 'restart'],
    CheckpointError: ['pick files', 'use bundled model'],
    DownloadError: ['restart'],
    TextTooShortError: ['shorten', 'pick text'],
    ContextTooLongError: ['shorten', 'pick files'],
    PromptError: ['edit facts'],
  };
  for (const [name, actions] of Object.entries(expected)) {
    it(`says a ${name} in words of its own, with what to do`, () => {
      const failure = failureOf(name)!;
      expect(failure.recoveries.map(({action}) => action)).to.deep.equal(actions);
      expect(failure.detail).to.equal('what came');
      expect(failure.title).not.to.equal(failureOf('TypeError')!.title);
      for (const {label} of failure.recoveries) expect(label).to.match(/^[A-Z]/);
    });
  }

  it('has nothing to say about a run that was stopped', () => {
    expect(failureOf('AbortError')).to.equal(undefined);
  });

  it('restarts the engine after a crash and after a fault of the program', () => {
    expect(actionsOf(CRASH)).to.deep.equal(['restart']);
    expect(actionsOf('TypeError')).to.deep.equal(['restart']);
  });

  it('offers no shorter context below the shortest', () => {
    expect(actionsOf('OutOfMemoryError', {shorter: undefined})).to.deep.equal(['restart']);
    expect(actionsOf('TextTooShortError', {shorter: undefined})).to.deep.equal(['pick text']);
  });

  it('offers the next backend after the one that failed, and a second look where all did', () => {
    const backends = (backend: FailureContext['backend']) =>
      failureOf('BackendError', {backend})!.recoveries.map((recovery) => 'backend' in recovery && recovery.backend);
    expect(backends('webgpu')).to.deep.equal(['webgl', 'auto']);
    expect(backends('webgl')).to.deep.equal(['cpu', 'auto']);
    expect(backends('cpu')).to.deep.equal(['webgpu', 'auto']);
    expect(backends('auto')).to.deep.equal(['auto']);
  });

  it('says that the model from before stays, where there is one', () => {
    expect(actionsOf('CheckpointError', {hasModel: true})).to.deep.equal(['pick files']);
    expect(failureOf('CheckpointError', {hasModel: true})!.advice).to.include('from before');
  });
});

describe('endsEngine', () => {
  it('keeps the engine after what left it as it was, and ends it after everything else', () => {
    const ends = (name: string) => endsEngine(Object.assign(new Error(), {name}));
    for (const name of ['AbortError', 'CheckpointError', 'TextTooShortError', 'PromptError']) {
      expect(ends(name), name).to.equal(false);
    }
    for (const name of ['BackendError', 'DeviceLostError', 'OutOfMemoryError', CRASH, 'TypeError']) {
      expect(ends(name), name).to.equal(true);
    }
  });
});
