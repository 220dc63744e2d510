import type {BackendName} from './options';
import type {AttentionCalibration} from '../src/index';
import type {Timing} from './statistics';

/** Methods of exact attention, as they head a column. */
export const METHODS = {
  'ours-f32': 'ours, float32',
  'ours-f16': 'ours, float16',
  'ours-f16-plain': 'ours, float16, no matrix units',
  composed: 'tfjs composed, float32',
  'ort-f32': 'ONNX Runtime, float32',
  'ort-f16': 'ONNX Runtime, float16',
} as const;
export type Method = keyof typeof METHODS;

/** Exact causal attention by one method at one length. */
export interface ExactResult {
  kind: 'exact';
  shape: string;
  /** Tokens. */
  length: number;
  method: Method;
  /** Time a call, from many calls per wait for the device; absent where the method did not run, and `note` says why. */
  call?: Timing;
  /** Time on the GPU alone, by timestamps. */
  gpu?: Timing;
  note?: string;
}

/** The parts of block-sparse attention. */
export const STAGES = ['permute', 'score', 'select', 'attend', 'other'] as const;
export type Stage = (typeof STAGES)[number];

/** Block-sparse against exact attention, both ours, on one set of inputs. */
export interface SparseResult {
  kind: 'sparse';
  /** `stacked`: the heads of several captured layers in one call. */
  data: 'captured' | 'stacked' | 'synthetic';
  shape: string;
  /** Tokens. */
  length: number;
  /** Layer of the model, from 0; 0 where the data are of several, or synthetic. */
  layer: number;
  precision: string;
  threshold: number;
  /** Kept over causally visible blocks. */
  density: number;
  exact: Timing;
  sparse: Timing;
  /** Milliseconds on the GPU; absent without timestamps. */
  exactGpu?: number;
  /** Milliseconds on the GPU a stage, and a program. */
  stages?: Partial<Record<Stage, number>>;
  programs?: Array<{program: string; stage: Stage; gpu: Timing}>;
  /** Σ|sparse − exact| / Σ|exact| of the outputs; absent for the longest, which would take long to read. */
  difference?: number;
}

/** Most bytes held at a time beyond the inputs. */
export interface MemoryResult {
  kind: 'memory';
  shape: string;
  /** Tokens. */
  length: number;
  /** Bytes of the output alone, which every method needs. */
  output: number;
  exact: number;
  sparse: number;
  /** Measured, where it ran. */
  composed?: number;
  /** Bytes of one score matrix of the composed way. */
  scoreMatrix: number;
}

/** Exact attention of a few query rows over a cache of keys and values. */
export interface DecodeResult {
  kind: 'decode';
  shape: string;
  /** Keys. */
  length: number;
  /** Query rows. */
  rows: number;
  call: Timing;
  /** Milliseconds on the GPU, all programs together, and a program; absent without timestamps. */
  gpu?: number;
  programs?: Array<{program: string; gpu: Timing}>;
  /** Bytes of keys and values in float32, each of which is read. */
  bytes: number;
  /** Bytes that tfjs's sum of keys and values reads and writes in a millisecond: what the device's memory does. */
  streamed: number;
  /** The same over packed float16, half of the bytes; absent on backends that have none. */
  packed?: {call: Timing; gpu?: number};
  /** tfjs's own ops; absent for several rows. */
  composed?: Timing;
}

/** Milliseconds that a call keeps the device busy: on WebGL, whose draws are timed with a wait each, by the clock. */
export const timeOnDevice = ({call, gpu}: {call: Timing; gpu?: number}, backend: BackendName): number =>
  backend === 'webgl' ? call.median : (gpu ?? call.median);

/** What `auto` goes by. */
export const BASES = {
  class: 'class of device',
  calibration: 'calibrated',
  loaded: 'calibrated beside a load',
  density: 'calibrated, density known',
} as const;
export type Basis = keyof typeof BASES;

/** Exact and block-sparse attention on synthetic data, and which of them `auto` takes. */
export interface AutoResult {
  kind: 'auto';
  shape: string;
  /** Tokens. */
  length: number;
  precision: string;
  threshold: number;
  density: number;
  exact: Timing;
  sparse: Timing;
  choices: Record<Basis, 'exact' | 'sparse'>;
}

/** Attention with its gradients by query, key and value. */
export interface GradientResult {
  kind: 'gradient';
  data: 'random' | 'captured';
  shape: string;
  /** Tokens. */
  length: number;
  /** Layer of the model, from 0; absent where the data are random. */
  layer?: number;
  exact: Timing;
  /** Absent for random data, in which no blocks matter more than others. */
  sparse?: Timing;
  /** tfjs's own ops; absent where they were not asked. */
  composed?: Timing;
}

/** What can be added to exact attention; `window` is an eighth of the tokens. */
export const FORMS = ['sinks', 'alibiSlopes', 'softCap', 'window'] as const;
export type Form = (typeof FORMS)[number];

/** Exact causal attention in a form, and the same without, taken in turns. */
export interface FormResult {
  kind: 'form';
  shape: string;
  /** Tokens. */
  length: number;
  method: Method;
  form: Form;
  /** Absent where it did not run, and `note` says why. */
  call?: Timing;
  plain?: Timing;
  note?: string;
}

/** How far another implementation's output is from ours, so that it surely computes the same thing. */
export interface AgreementResult {
  kind: 'agreement';
  shape: string;
  length: number;
  method: Method | 'ort-cpu-f32' | 'ort-cpu-f16';
  /** Σ|theirs − ours| / Σ|ours|; absent where it did not run. */
  difference?: number;
  note?: string;
}

export type Result =
  ExactResult | FormResult | SparseResult | AutoResult | DecodeResult | GradientResult | MemoryResult | AgreementResult;

/** One start of the benchmark. */
export interface Run {
  date: string;
  command: string;
  /** `Node v20.20.2 with Dawn` or `Chromium 143`. */
  host: string;
  /** Absent in runs from before WebGL was measured: webgpu. */
  backend?: BackendName;
  /** Name of the GPU; with WebGL, of the renderer. */
  adapter: string;
  features: string[];
  /** What else tells devices apart. */
  limits?: Record<string, number>;
  versions: Record<string, string>;
  results: Result[];
  /** Of this device, measured by the group `auto`. */
  calibration?: AttentionCalibration;
  /** Cases that were not run, with the reason. */
  skipped: string[];
  /** Errors that the device reported: results are worth nothing then. */
  errors: string[];
}
