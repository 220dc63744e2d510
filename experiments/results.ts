import type {Sizes} from './options';
import type {Task} from './prompts/tasks';
import type {Estimate} from './statistics';

/** One way of attending at one length: what the model loses and what it saves. */
export interface SweepRow {
  /** Tokens. */
  length: number;
  variant: string;
  /** What the sub-command varies, for tables and plots. */
  settings: Record<string, number | string | boolean>;
  /** Share of visible blocks kept, mean over prompts, layers and heads. */
  density: number;
  /** Mean next-token loss in nats, answers left out. */
  loss: number;
  /** Loss less that of exact attention on the same prompts. */
  lossDifference: Estimate;
  needle: Partial<Record<Task, Needle>>;
  /** Absent where the device has no timestamps, or timing was not wanted. */
  time?: AttentionTime;
}

export interface Needle {
  correct: number;
  asked: number;
  /** Wilson's 95% interval. */
  share: Estimate;
}

/** Milliseconds on the GPU for all heads of a layer, the mean over the layers that are timed. */
export interface AttentionTime {
  exact: number;
  sparse: number;
  /** Everything before attention: permutation, scores, selection. */
  overhead: number;
}

export interface SanityRow {
  length: number;
  check: string;
  /** Σ|a − b| / Σ|b| of attention's outputs, worst layer. */
  outputDifference: number;
  /** Loss less that of exact attention, in nats. */
  lossDifference: number;
}

export interface Results {
  sweep: SweepRow[];
  sanity: SanityRow[];
}

/** One sub-command's run, as it is written to its JSON file. */
export interface Run extends Partial<Results> {
  experiment: string;
  date: string;
  /** The command line; of a run that was continued, the last one. */
  command: string;
  host: string;
  adapter: string;
  questions: number;
  /** Sizes of blocks and segments, where they were not the library's. */
  sizes: Sizes;
  /** Whether attention is timed, where the sub-command does that. */
  timed: boolean;
  /** What was left out, and why. */
  skipped: string[];
  /** What the device reported meanwhile: results that came with it are worth nothing. */
  errors: string[];
}
