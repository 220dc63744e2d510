import type {HeadShape} from '../shapes';
import type {Timing} from '../statistics';

/** ONNX Runtime runs in a process of its own: it brings its own Dawn, and a crash of it must not end the benchmark. */
export interface OnnxRequest extends HeadShape {
  /** `time` gives the time of a call, `output` the values. */
  task: 'time' | 'output';
  dtype: 'float32' | 'float16';
  /** `webgpu`, or `cpu` to check the model itself. */
  provider: 'webgpu' | 'cpu';
  /** Tokens. */
  length: number;
  /** A row sees so many keys, its own among them (`local_window_size`); absent: all before it. */
  window?: number;
  /** Inputs are those of `randomFloats` with `seed`, `seed + 1` and `seed + 2`, in the order `[length, heads, headDim]`. */
  seed: number;
  /** About how long to take for the timings. */
  seconds: number;
}

export type OnnxAnswer = {version: string} & ({timing: Timing} | {output: number[]} | {failure: string});
