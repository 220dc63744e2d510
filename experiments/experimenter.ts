import {StepRunner} from '../bench/step_runner';
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
  private readonly steps: StepRunner;

  constructor(
    readonly subject: Subject,
    readonly device: ExperimentDevice,
    readonly options: Options,
    readonly place: Place,
    readonly run: Run,
  ) {
    this.steps = new StepRunner(options.budget, device.errors, run, place.log, () => place.save(run));
  }

  /**
   * Runs one step unless the time is spent, notes its rows, and saves. A step that throws is noted, and the next one runs.
   */
  step<K extends keyof Results>(kind: K, name: string, body: () => Promise<Results[K]>): Promise<void> {
    return this.steps.step(name, async () => {
      const rows = await body();
      (this.run[kind] ??= [] as never[]).push(...(rows as never[]));
    });
  }
}
