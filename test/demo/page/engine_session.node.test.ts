import {expect} from 'chai';
import type {Remote} from 'comlink';
import type {Engine, Machine, ModelInfo, ModelSource} from '../../../demo/engine/protocol';
import {EngineSession} from '../../../demo/page/engine_session';

const machine: Machine = {
  backend: 'webgpu',
  adapter: 'gpu',
  software: false,
  features: [],
  reason: '',
  float16: 'none',
};
const modelInfo = {architecture: 'LlamaForCausalLM', maxLength: 512} as ModelInfo;
const bundled: ModelSource = {url: 'model/'};
const broken: ModelSource = {files: []};

/** Stands for the worker: notes what is asked of it, fails where told to. */
class RecordedHost {
  readonly calls: string[] = [];
  isOpen = false;
  fail: Record<string, string> = {};
  private readonly engine = {
    start: (backend?: string) => this.note(`start ${backend}`, machine),
    loadModel: (source: ModelSource) => this.note('url' in source ? 'load url' : 'load files', modelInfo),
    setText: (text: string) => this.note(`text ${text}`, undefined),
  } as unknown as Remote<Engine>;

  open(): void {
    this.isOpen = true;
  }

  close(): void {
    this.isOpen = false;
  }

  call<T>(use: (engine: Remote<Engine>) => Promise<T>): Promise<T> {
    return use(this.engine);
  }

  follow<Event, T>(
    use: (engine: Remote<Engine>, onEvent: (event: Event) => void) => Promise<T>,
    onEvent: (event: Event) => void,
  ): Promise<T> {
    return use(this.engine, onEvent);
  }

  private async note<T>(call: string, answer: T): Promise<T> {
    this.calls.push(call);
    await new Promise((resolve) => setTimeout(resolve));
    const name = this.fail[call];
    if (name !== undefined) throw Object.assign(new Error(call), {name});
    return answer;
  }
}

describe('EngineSession', () => {
  let host: RecordedHost;
  let session: EngineSession;
  const textOf = (text: string) => ({read: async () => text});
  const failure = () =>
    session.prepare().then(
      () => 'none',
      (error: Error) => error.name,
    );

  beforeEach(() => {
    host = new RecordedHost();
    session = new EngineSession(
      host,
      {backend: 'auto', model: bundled, text: textOf('one')},
      {onStep: () => {}, onMachine: () => {}, onModel: () => {}},
    );
  });

  it('does what is missing, and nothing twice', async () => {
    await session.prepare();
    expect(session.isReady).to.equal(true);
    await session.prepare();
    session.change({text: textOf('two')});
    expect(session.isReady).to.equal(false);
    await session.prepare();
    expect(host.calls).to.deep.equal(['start undefined', 'load url', 'text one', 'text two']);
  });

  it('runs preparations one after the other', async () => {
    const first = session.prepare();
    session.change({text: textOf('two')});
    await Promise.all([first, session.prepare()]);
    expect(host.calls.filter((call) => call.startsWith('start'))).to.have.lengthOf(1);
    expect(host.calls.at(-1)).to.equal('text two');
  });

  it('loads all again after the worker ended', async () => {
    await session.prepare();
    host.close();
    expect(session.isReady).to.equal(false);
    host.calls.length = 0;
    await session.prepare();
    expect(host.calls).to.deep.equal(['start undefined', 'load url', 'text one']);
  });

  it('takes another worker for another backend', async () => {
    await session.prepare();
    session.change({backend: 'cpu'});
    host.calls.length = 0;
    await session.prepare();
    expect(host.calls).to.deep.equal(['start cpu', 'load url', 'text one']);
  });

  for (const [what, name] of [
    ['files are refused', 'CheckpointError'],
    ['loading is stopped', 'AbortError'],
  ]) {
    it(`keeps the model from before when ${what}`, async () => {
      await session.prepare();
      host.fail = {'load files': name};
      session.change({model: broken});
      expect(await failure()).to.equal(name);
      expect(session.wish.model).to.equal(bundled);
      expect(session.isReady).to.equal(true);
    });
  }

  it('ends a worker that cannot go on, and starts another the next time', async () => {
    host.fail = {'load url': 'OutOfMemoryError'};
    expect(await failure()).to.equal('OutOfMemoryError');
    expect(host.isOpen).to.equal(false);
    host.fail = {};
    expect(await failure()).to.equal('none');
    expect(session.isReady).to.equal(true);
  });

  it('tries a backend again that did not start', async () => {
    host.fail = {'start undefined': 'BackendError'};
    expect(await failure()).to.equal('BackendError');
    host.fail = {};
    expect(await failure()).to.equal('none');
  });
});
