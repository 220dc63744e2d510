import type {ExperimentDevice} from './device';
import type {Subject} from './measure/model';
import type {Options} from './options';
import type {Results, Run} from './results';

/** Where an experiment runs: what it writes to, and what a person sees meanwhile. */
export interface Place {
  log: (line: string) => void;
  /** Called after every row, so that a run that is cut short leaves what it has. */
  save: (run: Run) => void;
}

/** What the sub-commands work with. */
export class Experimenter {
  private readonly start = performance.now();

  constructor(
    readonly subject: Subject,
    readonly device: ExperimentDevice,
    readonly options: Options,
    readonly place: Place,
    readonly run: Run,
  ) {}

  /**
   * Runs one step unless the time is spent, notes its rows, and saves. A step that throws is noted, and the next one runs.
   */
  async step<K extends keyof Results>(kind: K, name: string, body: () => Promise<Results[K]>): Promise<void> {
    const spent = (performance.now() - this.start) / 1000;
    if (spent > this.options.budget) {
      this.skip(name, 'the time was spent');
      return;
    }
    const errorsBefore = this.device.errors.length;
    const begin = performance.now();
    try {
      const rows = await body();
      (this.run[kind] ??= [] as never[]).push(...(rows as never[]));
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      this.place.log(`${spent.toFixed(0).padStart(4)} s  ${name}  (${seconds} s)`);
    } catch (error) {
      this.skip(name, (error as Error).message);
    }
    for (const message of this.device.errors.slice(errorsBefore)) {
      this.run.errors.push(`${name}: ${message}`);
      this.place.log(`device error in ${name}: ${message.split('\n')[0]}`);
    }
    this.place.save(this.run);
  }

  private skip(name: string, reason: string): void {
    this.run.skipped.push(`${name}: ${reason}`);
    this.place.log(`not run: ${name}: ${reason}`);
  }
}
