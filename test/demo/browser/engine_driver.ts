import {proxy, wrap, type Remote} from 'comlink';
import type {Engine, LoadProgress, ModelInfo, StoredModel} from '../../../demo/engine/protocol';

/** What a test does with the engine of a page; everything can be cloned. */
export interface EngineDriver {
  /** @param stopAfter cancels as soon as as many bytes are downloaded. */
  load(address: string, hub: string, stopAfter?: number): Promise<Loaded>;
  list(): Promise<StoredModel[]>;
  /** The message of what it throws. */
  remove(id: string): Promise<string | undefined>;
  /** What the page's policy has refused. */
  violations: string[];
}

export interface Loaded {
  info?: ModelInfo;
  failure?: {name: string; message: string};
  /** Of the download. */
  progress: LoadProgress[];
}

declare global {
  interface Window {
    driver: EngineDriver;
  }
}

let started: Promise<Remote<Engine>> | undefined;

/** As the page does it: in a worker, on a backend that starts at once. */
function engine(): Promise<Remote<Engine>> {
  started ??= (async () => {
    const remote = wrap<Engine>(new Worker('assets/worker-engine.js', {type: 'module'}));
    await remote.start('cpu');
    return remote;
  })();
  return started;
}

window.driver = {
  violations: [],
  async load(address, hub, stopAfter = Infinity) {
    const remote = await engine();
    const progress: LoadProgress[] = [];
    const onProgress = (now: LoadProgress) => {
      if (now.step !== 'download') return;
      progress.push(now);
      if (now.done >= stopAfter) void remote.cancelLoad();
    };
    try {
      return {info: await remote.loadModel({address, hub}, proxy(onProgress)), progress};
    } catch (error) {
      const {name, message} = error as Error;
      return {failure: {name, message}, progress};
    }
  },
  list: async () => (await engine()).listStored(),
  async remove(id) {
    try {
      await (await engine()).deleteStored(id);
      return undefined;
    } catch (error) {
      return (error as Error).message;
    }
  },
};

document.addEventListener('securitypolicyviolation', ({violatedDirective, blockedURI}) => {
  window.driver.violations.push(`${violatedDirective}: ${blockedURI}`);
});
