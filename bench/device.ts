import type {Tensor} from '@tensorflow/tfjs-core';
import type {BackendName} from './options';
import type {Precision} from './our_attention';
import type {Run} from './results';
import type {Timing} from './statistics';

/** One call of what is timed; its output lives until the caller disposes it. */
export type Call = () => Tensor;

/** Time on the GPU of one program of a call. */
export interface ProgramTiming {
  program: string;
  gpu: Timing;
}

/** How a backend is waited for. */
export interface Clock {
  /** Shortest timing, in milliseconds, so that waiting for the device does not count. */
  shortestMs: number;
  /** Least time of calls before the first that counts, compiling not included. */
  warmUpMs: number;
  /** Sends what is recorded to the device and waits until it is done; `last` is the output of the last call. */
  finish(last: Tensor): Promise<void>;
}

/** How a backend is waited for, and how its programs are timed. */
export interface Timer extends Clock {
  /**
   * Time on the GPU of each program of a call, in milliseconds.
   *
   * @param seconds about how long to take.
   * @returns undefined where the device cannot tell.
   */
  timePrograms(call: Call, seconds: number): Promise<ProgramTiming[] | undefined>;
}

/** Most bytes of a tensor, and what sets the limit, as in “past the binding limit”. */
export interface SizeLimit {
  bytes: number;
  reason: string;
}

/** What the cases need of the backend that is measured. */
export interface Device {
  /** The device as the report describes it. */
  about: Pick<Run, 'backend' | 'adapter' | 'features' | 'limits'> & {backend: BackendName};
  /** Errors of the device so far; a result that came with one is worth nothing. */
  errors: string[];
  timer: Timer;
  /** Precisions that the backend has at all. */
  precisions: readonly Precision[];
  /** Why the library cannot compute in one of them on this device, or undefined if it can. */
  whyNot(precision: Precision): string | undefined;
  tensorLimit: SizeLimit;
  /** For a score matrix of composed attention. */
  scoreLimit: SizeLimit;
  /** Longest of the lengths that a group has of its own, in tokens. */
  longest: number;
  /** Most bytes that a call holds on the GPU beyond its inputs; absent where they cannot be counted. */
  peakBytes?: (call: Call) => Promise<number>;
}
