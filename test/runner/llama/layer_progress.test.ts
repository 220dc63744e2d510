import {expect} from 'chai';
import {LayerProgress, nextTask} from '../../../runner/llama/layer_progress';
import {rejection} from './tiny/random_checkpoint';

/** A backend that finishes a layer when the test says so. */
function slowBackend() {
  const resolvers: Array<() => void> = [];
  const rejecters: Array<(error: Error) => void> = [];
  return {
    queue: () =>
      new Promise<void>((resolve, reject) => {
        resolvers.push(resolve);
        rejecters.push(reject);
      }),
    finish: async (layer: number) => {
      resolvers[layer]();
      await nextTask();
    },
    fail: async (layer: number, error: Error) => {
      rejecters[layer](error);
      await nextTask();
    },
  };
}

describe('LayerProgress', () => {
  it('reports layers when they are finished, and never has more than two wait', async () => {
    const backend = slowBackend();
    const log: string[] = [];
    const progress = new LayerProgress((layer) => void log.push(`finished ${layer}`));
    const run = async () => {
      for (let layer = 0; layer < 4; ++layer) {
        log.push(`queued ${layer}`);
        await progress.queued(backend.queue());
      }
      await progress.finish();
      log.push('end');
    };
    const running = run();
    const wait = async () => {
      for (let i = 0; i < 6; ++i) await nextTask();
    };
    await wait();
    expect(log).to.deep.equal(['queued 0', 'queued 1', 'queued 2']);
    await backend.finish(0);
    await wait();
    expect(log.splice(0)).to.deep.equal(['queued 0', 'queued 1', 'queued 2', 'finished 0', 'queued 3']);
    // Out of order, as backends do not: still told in order.
    await backend.finish(2);
    await wait();
    expect(log).to.deep.equal([]);
    await backend.finish(1);
    await backend.finish(3);
    await running;
    expect(log).to.deep.equal(['finished 1', 'finished 2', 'finished 3', 'end']);
  });

  it('reports at once what was finished at once', async () => {
    const log: number[] = [];
    const progress = new LayerProgress((layer) => void log.push(layer));
    await progress.queued(Promise.resolve());
    expect(log).to.deep.equal([0]);
    await progress.queued(Promise.resolve());
    expect(log).to.deep.equal([0, 1]);
  });

  it('passes on the failure of a layer in its turn, and waits for the others', async () => {
    const backend = slowBackend();
    const progress = new LayerProgress();
    await progress.queued(backend.queue());
    await progress.queued(backend.queue());
    await backend.fail(1, new Error('device lost'));
    const ended = rejection(progress.queued(backend.queue()).then(() => progress.finish()));
    await backend.finish(0);
    expect(await ended).to.equal('device lost');
    let drained = false;
    const draining = progress.drain().then(() => (drained = true));
    await nextTask();
    expect(drained).to.equal(false);
    await backend.finish(2);
    await draining;
  });

  it('ends with the reason of the signal', async () => {
    const controller = new AbortController();
    const progress = new LayerProgress(undefined, controller.signal);
    await progress.queued(Promise.resolve());
    // In a task of its own, as a message from a page would come.
    setTimeout(() => controller.abort());
    await new Promise((resolve) => setTimeout(resolve, 5));
    const ended = await progress.queued(Promise.resolve()).catch((error: Error) => error.name);
    expect(ended).to.equal('AbortError');
  });
});
