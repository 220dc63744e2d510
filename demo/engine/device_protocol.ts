import type {AttentionCalibration} from '../../src/index';
import type {BackendName} from '../backend_names';

/** Ways of attending that are measured. Those of float16 only where the device multiplies it. */
export const METHODS = ['exact', 'sparse', 'composed', 'exact16', 'sparse16'] as const;
export type Method = (typeof METHODS)[number];

/** Lengths that can be measured, in tokens. */
export const MEASURED_LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16_384] as const;

/** One length, causal, queries as many as keys. */
export interface MeasuredLength {
  length: number;
  /** Milliseconds a call, medians; absent where a way was not measured. */
  ms: Partial<Record<Method, number>>;
  /** Share of the visible blocks that sparse attention kept, by synthetic data with the patterns of long prompts. */
  density: number;
  /** What `auto` takes there in float32, by the calibration. */
  auto: 'exact' | 'sparse';
}

/** What a device was measured to do; everything of it can be shared. */
export interface DeviceResult {
  version: 1;
  /** As `toISOString` writes it. */
  date: string;
  backend: BackendName;
  adapter: string;
  features: string[];
  heads: number;
  headDim: number;
  threshold: number;
  /** By length. */
  lengths: MeasuredLength[];
}

export interface MeasureRequest {
  /** Longest of `MEASURED_LENGTHS` to measure; those below are measured, too. */
  longest: number;
}

/** What is measured now; `done` of `steps` steps are. */
export interface MeasureProgress {
  words: string;
  done: number;
  steps: number;
}

/** Sent as soon as there is something new. */
export type MeasureEvent =
  | {type: 'progress'; progress: MeasureProgress}
  /** It is in use then, also where what follows is stopped; `sparseFrom` as in `ModelInfo`, by it. */
  | {type: 'calibration'; calibration: AttentionCalibration; sparseFrom?: number}
  /** With each length. */
  | {type: 'result'; result: DeviceResult};
