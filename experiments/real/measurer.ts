import {StepRunner} from '../../bench/step_runner';
import type {ExperimentDevice} from '../device';
import type {LocalModel} from '../../hosts/local_model';
import type {RealOptions} from './options';
import type {RealResults, RealRun} from './results';

/** What the parts of `real` work with. */
export class Measurer {
  private readonly steps: StepRunner;
  readonly model: LocalModel['model'];
  readonly tokenizer: LocalModel['tokenizer'];

  /**
   * @param tokens the first tokens of a text, by its name.
   * @param save called after every step.
   */
  constructor(
    subject: LocalModel,
    readonly device: ExperimentDevice,
    readonly options: RealOptions,
    readonly run: RealRun,
    readonly tokens: (text: string, length: number) => number[],
    readonly log: (line: string) => void,
    save: () => void,
  ) {
    this.model = subject.model;
    this.tokenizer = subject.tokenizer;
    this.steps = new StepRunner(options.budget, device.errors, run, log, save);
  }

  /** Runs one step unless the time is spent, and saves. A step that throws is noted, and the next one runs. */
  step(name: string, body: () => Promise<void>): Promise<void> {
    return this.steps.step(name, body);
  }

  skip(name: string, reason: string): void {
    this.steps.skip(name, reason);
  }

  /** Whether the run has a row with these values: one that was continued does not measure it again. */
  has<Kind extends keyof RealResults>(kind: Kind, values: Partial<RealResults[Kind][number]>): boolean {
    const rows: ReadonlyArray<RealResults[Kind][number]> = this.run[kind];
    return rows.some((row) => Object.entries(values).every(([name, value]) => row[name as keyof typeof row] === value));
  }
}
