/** What a run notes of its steps. */
export interface StepLog {
  skipped: string[];
  errors: string[];
}

/** Runs steps one after the other until the time is spent; whatever happens to one, the next one runs. */
export class StepRunner {
  private readonly start = performance.now();

  /**
   * @param budget seconds after which no step is started.
   * @param deviceErrors errors of the device so far; it grows.
   * @param noted where steps that were left out, and errors of the device, are noted.
   * @param log a line for the person who waits.
   * @param save called after every step, so that a run that is cut short leaves what it has.
   */
  constructor(
    private readonly budget: number,
    private readonly deviceErrors: readonly string[],
    private readonly noted: StepLog,
    private readonly log: (line: string) => void,
    private readonly save: () => void,
  ) {}

  async step(name: string, body: () => Promise<void>): Promise<void> {
    const spent = (performance.now() - this.start) / 1000;
    if (spent > this.budget) {
      this.skip(name, 'the time was spent');
      return;
    }
    const errorsBefore = this.deviceErrors.length;
    const begin = performance.now();
    try {
      await body();
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      this.log(`${spent.toFixed(0).padStart(4)} s  ${name}  (${seconds} s)`);
    } catch (error) {
      this.skip(name, (error as Error).message);
    }
    for (const message of this.deviceErrors.slice(errorsBefore)) {
      this.noted.errors.push(`${name}: ${message}`);
      this.log(`device error in ${name}: ${message.split('\n')[0]}`);
    }
    this.save();
  }

  skip(name: string, reason: string): void {
    this.noted.skipped.push(`${name}: ${reason}`);
    this.log(`not run: ${name}: ${reason}`);
  }
}
