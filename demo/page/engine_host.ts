import {proxy, wrap, type Remote} from 'comlink';
import type {Engine} from '../engine/protocol';
import {CRASH} from './failures';

/** The worker that computes. A call never waits for a worker that has ended. */
export class EngineHost {
  private current?: {worker: Worker; engine: Remote<Engine>; ended: Promise<never>; end: (reason: Error) => void};

  private opened = 0;

  constructor(private readonly createWorker: () => Worker) {}

  /** Another number for another worker; 0 where there is none. */
  get generation(): number {
    return this.current === undefined ? 0 : this.opened;
  }

  get isOpen(): boolean {
    return this.current !== undefined;
  }

  /** Makes a new worker in the place of the one there may be. */
  open(): void {
    this.close();
    ++this.opened;
    const worker = this.createWorker();
    let end!: (reason: Error) => void;
    const ended = new Promise<never>((_, reject) => (end = reject));
    // Without a call in progress nobody waits for it.
    ended.catch(() => {});
    const current = {worker, engine: wrap<Engine>(worker), ended, end};
    this.current = current;
    const crash = (event: Event) => {
      if (this.current !== current) return;
      this.close(namedError(CRASH, (event as ErrorEvent).message || 'the worker gave no reason'));
    };
    worker.addEventListener('error', crash);
    worker.addEventListener('messageerror', crash);
  }

  /** Ends the worker, whatever it does; calls in progress reject with `reason`. */
  close(reason: Error = namedError('AbortError', 'the engine was ended')): void {
    const {current} = this;
    this.current = undefined;
    current?.worker.terminate();
    current?.end(reason);
  }

  /**
   * @param generation the worker to ask, where another one would not know the answer.
   * @throws what the engine throws, or why its worker ended meanwhile.
   */
  async call<T>(use: (engine: Remote<Engine>) => Promise<T>, generation = this.generation): Promise<T> {
    if (this.current === undefined || generation !== this.generation)
      throw namedError('AbortError', 'there is no engine');
    return Promise.race([use(this.current.engine), this.current.ended]);
  }

  /**
   * A call that tells how it goes. Its events come through a port of their own, which the browser may serve after that of
   * the answer: an event that comes after the answer is dropped.
   *
   * @throws as `call` does.
   */
  async follow<Event, T>(
    use: (engine: Remote<Engine>, onEvent: (event: Event) => void) => Promise<T>,
    onEvent: (event: Event) => void,
  ): Promise<T> {
    let answered = false;
    const onEventBefore = proxy((event: Event) => {
      if (!answered) onEvent(event);
    });
    try {
      return await this.call((engine) => use(engine, onEventBefore));
    } finally {
      answered = true;
    }
  }
}

function namedError(name: string, message: string): Error {
  return Object.assign(new Error(message), {name});
}
