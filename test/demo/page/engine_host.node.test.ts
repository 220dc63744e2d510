import {expect} from 'chai';
import {expose} from 'comlink';
import type {LoadProgress, ModelInfo, ModelSource} from '../../../demo/engine/protocol';
import {EngineHost} from '../../../demo/page/engine_host';

const modelInfo = {architecture: 'LlamaForCausalLM', maxLength: 512} as ModelInfo;
const source: ModelSource = {url: 'model/'};
const tensors = (done: number): LoadProgress => ({step: 'upload', done, total: 3});

/** A worker in this thread. */
class NearWorker extends EventTarget {
  private readonly ports = new MessageChannel();

  constructor(engine: object) {
    super();
    expose(engine, this.ports.port2);
    this.ports.port1.onmessage = ({data}) => this.dispatchEvent(new MessageEvent('message', {data}));
  }

  postMessage(data: unknown, transfer: Transferable[]): void {
    this.ports.port1.postMessage(data, transfer);
  }

  terminate(): void {
    this.ports.port1.close();
  }
}

describe('EngineHost', () => {
  let host: EngineHost;
  let events: number[];
  let tell: (progress: LoadProgress) => Promise<void>;
  let answer: (model: ModelInfo) => void;
  let called: Promise<void>;

  beforeEach(() => {
    events = [];
    called = new Promise((resolve) => {
      const engine = {
        loadModel(_: ModelSource, onProgress: typeof tell) {
          tell = onProgress;
          resolve();
          return new Promise<ModelInfo>((settle) => (answer = settle));
        },
      };
      host = new EngineHost(() => new NearWorker(engine) as unknown as Worker);
    });
    host.open();
  });

  afterEach(() => host.close());

  const load = () =>
    host.follow<LoadProgress, ModelInfo>(
      (engine, onProgress) => engine.loadModel(source, onProgress),
      ({done}) => void events.push(done),
    );

  it('tells the events of a call, and drops those that come after its answer', async () => {
    const loading = load();
    await called;
    await tell(tensors(1));
    await tell(tensors(2));
    answer(modelInfo);
    expect(await loading).to.deep.equal(modelInfo);
    await tell(tensors(3));
    expect(events).to.deep.equal([1, 2]);
  });

  it('drops those that come after the worker was ended', async () => {
    const loading = load();
    await called;
    await tell(tensors(1));
    host.close(new Error('ended by the test'));
    expect(await loading.catch((error: Error) => error.message)).to.equal('ended by the test');
    await tell(tensors(2));
    expect(events).to.deep.equal([1]);
  });
});
