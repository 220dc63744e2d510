import type {ReadFile} from '../captured_attention';
import type {Device} from '../device';
import type {OnnxAnswer, OnnxRequest} from '../onnx/messages';
import type {CaseOptions} from '../options';
import type {Result, Run} from '../results';
import {StepRunner} from '../step_runner';

/** What the place where the benchmark runs gives it: Node or a page. */
export interface Place {
  readFile: ReadFile;
  /** ONNX Runtime; absent in a page. */
  askOnnx?: (request: OnnxRequest) => Promise<OnnxAnswer>;
  /** A line for the person who waits. */
  log: (line: string) => void;
  /** Called after every case, so that a run that is cut short leaves what it has. */
  save: (run: Run) => void;
}

/** What a group of cases works with. */
export class CaseRunner {
  private readonly steps: StepRunner;

  constructor(
    readonly device: Device,
    readonly options: CaseOptions,
    readonly place: Place,
    readonly run: Run,
  ) {
    this.steps = new StepRunner(options.budget, device.errors, run, place.log, () => place.save(run));
  }

  /** Runs a case unless the time is spent. A case that throws is noted, and the next one runs. */
  case(name: string, body: () => Promise<Result[]>): Promise<void> {
    return this.steps.step(name, async () => {
      this.run.results.push(...(await body()));
    });
  }

  skip(name: string, reason: string): void {
    this.steps.skip(name, reason);
  }
}
