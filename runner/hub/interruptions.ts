/** The connection failed, or the server has a bad moment: another attempt may work. */
export class Interruption extends Error {}

/** No connection came about: the host may not exist. */
export class Unreachable extends Interruption {}

/** What the host sends is not the file that is wanted: what is stored of it is of no use. */
export class WrongFile extends Error {}

/** Ends a connection that says nothing. */
export class Silence {
  private readonly controller = new AbortController();
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** Aborted by silence, or with the signal that was given. */
  readonly signal: AbortSignal;

  constructor(
    private readonly ms: number,
    signal?: AbortSignal,
  ) {
    this.signal = signal ? AbortSignal.any([signal, this.controller.signal]) : this.controller.signal;
    this.hear();
  }

  get isOver(): boolean {
    return this.controller.signal.aborted;
  }

  hear(): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.controller.abort(), this.ms);
  }

  end(): void {
    clearTimeout(this.timer);
  }
}

/** Rejects with the signal's reason. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, {once: true});
  });
}

/** What `fetch` says of a connection that failed; Node hides the reason one level deeper. */
export function reasonOf(error: unknown): string {
  const {message, cause} = error as Error;
  return cause instanceof Error && cause.message !== '' ? `${message}: ${cause.message}` : message;
}
