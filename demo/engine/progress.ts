import type {AttentionName, RunProgress} from './protocol';

export type Step = RunProgress['step'];

interface Progress {
  type: 'progress';
  progress: RunProgress;
}

/** Layers before which the time left is not guessed: the first one compiles the shaders. */
const FIRST_GUESS = 2;

/** Turns what is finished into progress. Work is counted in prompt tokens; writing and looking at blocks add none. */
export class RunClock {
  private readonly work: number;
  private readonly begun = performance.now();
  /** Prompt tokens of the steps before this one. */
  private finished = 0;
  private attention: AttentionName = 'exact';
  private step?: Step;
  private stepBegun = 0;
  private layersDone = 0;

  /**
   * @param lengths tokens of the warm-up and of the prompt, which each way of attending reads.
   * @param ways of attending, one after the other.
   */
  constructor(
    private readonly layers: number,
    private readonly lengths: {warmUp: number; prompt: number},
    private readonly onEvent: (event: Progress) => void = () => {},
    ways = 2,
  ) {
    this.work = ways * (lengths.warmUp + lengths.prompt);
  }

  /** The step before is over. */
  begin(attention: AttentionName, step: Step): void {
    this.finished += this.tokens();
    this.attention = attention;
    this.step = step;
    this.stepBegun = performance.now();
    this.layersDone = 0;
    this.report();
  }

  finishedLayer(layer: number): void {
    this.layersDone = layer + 1;
    this.report();
  }

  /** Prompt tokens that the step reads. */
  private tokens(): number {
    if (this.step === 'warm-up') return this.lengths.warmUp;
    return this.step === 'prefill' ? this.lengths.prompt : 0;
  }

  private report(): void {
    const {attention, step, layersDone, layers} = this;
    const now = performance.now();
    const read = (layersDone / layers) * this.tokens();
    const done = (this.finished + read) / this.work;
    this.onEvent({
      type: 'progress',
      progress: {
        attention,
        step: step!,
        layersDone,
        layers,
        tokensPerSecond: read === 0 ? 0 : (1000 * read) / (now - this.stepBegun),
        // Where all is read, what is left is writing.
        ...(done < 1 &&
          (this.finished > 0 || layersDone >= FIRST_GUESS) && {
            secondsLeft: ((now - this.begun) / 1000) * (1 / done - 1),
          }),
        done,
      },
    });
  }
}
