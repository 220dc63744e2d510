import * as tf from '@tensorflow/tfjs-core';

/** Layers in the backend's queue while this thread waits: enough that a GPU never waits for this thread. */
const LAYERS_AHEAD = 2;

/**
 * Follows a prefill through its layers: reports those that the backend has finished, keeps the queue short, and looks
 * after each whether the work was cancelled.
 */
export class LayerProgress {
  /** Queued layers that are not reported yet, in their order. */
  private readonly queue: Array<{finished: Promise<unknown>; settled: boolean}> = [];
  private reported = 0;

  constructor(
    private readonly onLayer?: (layer: number) => void | Promise<void>,
    private readonly signal?: AbortSignal,
  ) {}

  /**
   * To be awaited after each layer was queued.
   *
   * @param finished resolves when the backend has computed the layer.
   */
  async queued(finished: Promise<unknown>): Promise<void> {
    const layer = {finished, settled: false};
    const settle = () => void (layer.settled = true);
    // Also keeps a failure from counting as unhandled before its turn comes.
    finished.then(settle, settle);
    this.queue.push(layer);
    await nextTask();
    this.signal?.throwIfAborted();
    while (this.queue.length > LAYERS_AHEAD || this.queue[0]?.settled) await this.reportNext();
  }

  /** Waits for the layers that are still queued, and reports them. */
  async finish(): Promise<void> {
    while (this.queue.length > 0) await this.reportNext();
  }

  /** Waits for the layers that are still queued, whatever becomes of them. */
  async drain(): Promise<void> {
    await Promise.allSettled(this.queue.map(({finished}) => finished));
  }

  private async reportNext(): Promise<void> {
    await this.queue[0].finished;
    this.queue.shift();
    this.signal?.throwIfAborted();
    await this.onLayer?.(this.reported++);
  }
}

/** Resolves when the backend has computed a tensor, and with it all that was queued before. */
export async function computed(x: tf.Tensor): Promise<void> {
  const first = tf.slice(
    x,
    x.shape.map(() => 0),
    x.shape.map(() => 1),
  );
  try {
    await first.data();
  } finally {
    first.dispose();
  }
}

/**
 * Lets messages and drawing in, where a backend that computes on this thread would keep them out. Unlike `setTimeout`,
 * browsers put no least time on it.
 */
export function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
