import type {ReadFile} from '../captured_attention';
import type {Device} from '../device';
import type {OnnxAnswer, OnnxRequest} from '../onnx/messages';
import type {CaseOptions} from '../options';
import type {Result, Run} from '../results';

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
  private readonly start = performance.now();

  constructor(
    readonly device: Device,
    readonly options: CaseOptions,
    readonly place: Place,
    readonly run: Run,
  ) {}

  /** Runs a case unless the time is spent. A case that throws is noted, and the next one runs. */
  async case(name: string, body: () => Promise<Result[]>): Promise<void> {
    const spent = (performance.now() - this.start) / 1000;
    if (spent > this.options.budget) {
      this.skip(name, 'the time was spent');
      return;
    }
    const errorsBefore = this.device.errors.length;
    const begin = performance.now();
    try {
      const results = await body();
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      this.place.log(`${spent.toFixed(0).padStart(4)} s  ${name}  (${seconds} s)`);
      this.run.results.push(...results);
    } catch (error) {
      this.skip(name, (error as Error).message);
    }
    for (const message of this.device.errors.slice(errorsBefore)) {
      this.run.errors.push(`${name}: ${message}`);
      this.place.log(`device error in ${name}: ${message.split('\n')[0]}`);
    }
    this.place.save(this.run);
  }

  skip(name: string, reason: string): void {
    this.run.skipped.push(`${name}: ${reason}`);
    this.place.log(`not run: ${name}: ${reason}`);
  }
}
