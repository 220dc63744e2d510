import type {Precision} from '../../bench/our_attention';
import type {Stage} from '../../bench/results';
import type {PBSAttentionSettings} from '../../src/index';
import type {Placement, RulerTask} from './ruler';

/** A text read with every layer attending by one rule, beside exact attention. */
export interface QualityRow {
  length: number;
  text: string;
  rule: string;
  /** Share of visible blocks kept, mean over layers and heads. */
  density: number;
  /** The same of each head, by layer. */
  densities: number[][];
  /** KL(exact ‖ sparse) of the next-token distribution, mean and median over the rows. */
  kl: number;
  klMedian: number;
  /** Share of the rows whose most likely token is that of exact attention. */
  top1: number;
  /** Mean loss of the rows' next tokens in nats, less that of exact attention. */
  lossDifference: number;
  /** True attention that the kept blocks hold: the mean over rows, heads and layers, and over the worst 5% of them. */
  keptMass: number;
  keptMassWorst: number;
}

/** GPU time of a layer's attention on what the model attends with, mean over some layers, in milliseconds. */
export interface TimeRow {
  length: number;
  text: string;
  rule: string;
  precision: Precision;
  layers: number[];
  /** Exact attention in the same precision, on the same layers, in the same run. */
  exact: number;
  total: number;
  stages: Partial<Record<Stage, number>>;
}

/** From the call of the prefill until the first token was read back, in milliseconds: median and quartiles. */
export interface FirstTokenRow {
  length: number;
  rule: string;
  precision: Precision;
  median: number;
  low: number;
  high: number;
  runs: number;
}

export interface TaskRow {
  length: number;
  task: RulerTask;
  rule: string;
  density: number;
  answers: Record<Placement, {correct: number; asked: number}>;
}

/** What the tuner chose for every layer on one text. */
export interface TunedRow {
  length: number;
  text: string;
  /** Relative L1 error of a layer's output that was allowed, the tuner's margin included. */
  allowed: number;
  /** Of the choices, on that text, mean over layers. */
  density: number;
  layers: TunedLayer[];
}

/** A layer's choice, and what it came to on the text that it was tuned on. */
export interface TunedLayer {
  options: PBSAttentionSettings;
  density: number;
  relativeL1: number;
}

/** A text read by a fixed rule, or with every layer attending as tuned on another text, beside exact attention. */
export interface TunerRow extends QualityRow {
  /** What the tuner saw; fixed rules are measured beside it. */
  tunedText: string;
  tunedLength: number;
}

export interface RealResults {
  quality: QualityRow[];
  time: TimeRow[];
  firstToken: FirstTokenRow[];
  tasks: TaskRow[];
  tuned: TunedRow[];
  tuner: TunerRow[];
}

/** All that was measured of one model on one device. */
export interface RealRun extends RealResults {
  model: string;
  date: string;
  /** Every command that the rows are of. */
  commands: string[];
  host: string;
  adapter: string;
  /** Whether attention may use the device's matrix units. */
  matrixUnits: boolean;
  /** Rows a text by which distributions are compared. */
  rows: number;
  /** Prompts a task. */
  prompts: number;
  skipped: string[];
  errors: string[];
}

/** The rule's name of exact attention in rows. */
export const EXACT = 'exact';

/** A run from its file; those of before the tuner have nothing of it. */
export function parseRun(json: string): RealRun {
  const run = JSON.parse(json) as Omit<RealRun, 'tuned' | 'tuner'> & Partial<RealRun>;
  return {...run, tuned: run.tuned ?? [], tuner: run.tuner ?? []};
}

/** One line a row, so that changes show in review. */
export function runJson(run: RealRun): string {
  const fields = Object.entries(run).map(([name, value]) => {
    const lines = Array.isArray(value) ? value.map((row) => `  ${JSON.stringify(row)}`) : [];
    return `${JSON.stringify(name)}: ${lines.length > 0 ? `[\n${lines.join(',\n')}\n ]` : JSON.stringify(value)}`;
  });
  return `{\n ${fields.join(',\n ')}\n}\n`;
}

/** As many digits as are worth keeping. */
export const rounded = (x: number): number => Number(x.toPrecision(5));
