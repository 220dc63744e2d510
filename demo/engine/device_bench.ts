import * as tf from '@tensorflow/tfjs-core';
import {timeCalls} from '../../bench/call_timing';
import {causalMask, composedAttention} from '../../bench/composed_attention';
import {syntheticAttention} from '../../bench/synthetic_attention';
import {
  calibrateAttention,
  flashAttention,
  pbsAttention,
  useAttentionCalibration,
  type PBSAttentionReport,
} from '../../src/index';
import {computed, nextTask} from '../../runner/llama/layer_progress';
import type {Backend} from '../backend';
import {rethrow} from './device_failure';
import {
  MEASURED_LENGTHS,
  type DeviceResult,
  type MeasuredLength,
  type MeasureEvent,
  type MeasureRequest,
  type Method,
} from './device_protocol';
import {whyReadExactly} from './sparse_reading';

/** As the bench has them; fewer values on the processor. */
const SHAPES = {graphics: {heads: 8, headDim: 64}, software: {heads: 2, headDim: 32}};
const THRESHOLD = 0.9;

/** About how long one way at one length may take, in seconds, compiling not included. */
const CASE_SECONDS = 1;

/** Score matrices that tfjs's own ops make are refused by many devices above this. */
const MOST_SCORE_BYTES = 2 ** 28;

/** Shortest timing by backend, so that waiting for the device does not count, in milliseconds. */
const SHORTEST_MS = {webgpu: 40, webgl: 120, cpu: 10};

interface Inputs {
  query: tf.Tensor4D;
  key: tf.Tensor4D;
  value: tf.Tensor4D;
}

/**
 * Calibrates attention, uses that, and times ways of attending by length.
 *
 * @throws Failure if the device reported an error meanwhile, or `signal` ended it; else what failed.
 */
export async function measureDevice(
  backend: Backend,
  {longest}: MeasureRequest,
  onEvent: (event: MeasureEvent) => void,
  signal: AbortSignal,
): Promise<DeviceResult> {
  const lengths = MEASURED_LENGTHS.filter((length) => length <= longest);
  const methods: Method[] = ['exact', 'sparse', 'composed'];
  if (backend.float16 !== 'none') methods.push('exact16', 'sparse16');
  const steps = 1 + lengths.length * methods.length;
  let done = 0;
  const begin = (words: string) => onEvent({type: 'progress', progress: {words, done, steps}});
  try {
    begin('calibrating');
    await nextTask();
    const calibration = await calibrateAttention({signal});
    useAttentionCalibration(calibration);
    onEvent({type: 'calibration', calibration});
    done = 1;
    const shape = SHAPES[backend.software ? 'software' : 'graphics'];
    const result: DeviceResult = {
      version: 1,
      date: new Date().toISOString(),
      ...{backend: backend.backend, adapter: backend.adapter, features: backend.features},
      ...shape,
      threshold: THRESHOLD,
      lengths: [],
    };
    for (const length of lengths) {
      const bench = new LengthBench(backend, shape, length, signal);
      try {
        const row: MeasuredLength = await bench.describe();
        for (const method of methods) {
          begin(`${length} tokens, ${METHOD_WORDS[method]}`);
          const ms = await bench.time(method);
          if (ms !== undefined) row.ms[method] = ms;
          ++done;
        }
        backend.throwIfFailed();
        result.lengths.push(row);
        onEvent({type: 'result', result});
      } finally {
        bench.dispose();
      }
    }
    return result;
  } catch (error) {
    return rethrow(error, backend, signal);
  }
}

export const METHOD_WORDS: Record<Method, string> = {
  exact: 'exact',
  sparse: 'sparse',
  composed: 'tfjs’s own ops',
  exact16: 'exact in float16',
  sparse16: 'sparse in float16',
};

/** One length on the device. */
class LengthBench {
  private readonly inputs: Inputs;

  constructor(
    private readonly backend: Backend,
    private readonly shape: {heads: number; headDim: number},
    private readonly length: number,
    private readonly signal: AbortSignal,
  ) {
    const {heads, headDim} = shape;
    const values = syntheticAttention({heads, keyValueHeads: heads, headDim}, length, 17);
    const tensor = (x: Float32Array) => tf.tensor4d(x, [1, heads, length, headDim]);
    this.inputs = {query: tensor(values.query), key: tensor(values.key), value: tensor(values.value)};
  }

  async describe(): Promise<MeasuredLength> {
    const {length, shape} = this;
    let report: PBSAttentionReport | undefined;
    this.sparse('float32', (given) => (report = given)).dispose();
    try {
      const density = await report!.density();
      const heads = {...shape, keyValueHeads: shape.heads};
      const isExact = whyReadExactly(heads, length, length, 'float32') !== undefined;
      return {length, ms: {}, density, auto: isExact ? 'exact' : 'sparse'};
    } finally {
      report?.dispose();
    }
  }

  /** Milliseconds a call; nothing where it would take too much memory. */
  async time(method: Method): Promise<number | undefined> {
    const {query, key, value} = this.inputs;
    switch (method) {
      case 'exact':
      case 'exact16':
        return this.timeCall(() => flashAttention(query, key, value, {precision: precisionOf(method)}));
      case 'sparse':
      case 'sparse16':
        return this.timeCall(() => this.sparse(precisionOf(method)));
      case 'composed':
        return this.timeComposed();
    }
  }

  dispose(): void {
    tf.dispose(Object.values(this.inputs));
  }

  private sparse(precision: 'float32' | 'float16', onReport?: (report: PBSAttentionReport) => void): tf.Tensor4D {
    const {query, key, value} = this.inputs;
    const options = {threshold: THRESHOLD, auto: false, precision};
    return pbsAttention(query, key, value, onReport ? {...options, onReport} : options);
  }

  private async timeComposed(): Promise<number | undefined> {
    if (4 * this.shape.heads * this.length ** 2 > MOST_SCORE_BYTES) return undefined;
    const mask = causalMask(this.length);
    try {
      return await this.timeCall(() => composedAttention(this.inputs, mask));
    } finally {
      mask.dispose();
    }
  }

  private async timeCall(call: () => tf.Tensor): Promise<number> {
    const timer = {
      shortestMs: SHORTEST_MS[this.backend.backend],
      warmUpMs: 0,
      finish: async (last: tf.Tensor) => {
        await computed(last);
        // A wish to stop comes as a message.
        await nextTask();
        this.signal.throwIfAborted();
      },
      timePrograms: async () => undefined,
    };
    return (await timeCalls(timer, call, CASE_SECONDS)).median;
  }
}

function precisionOf(method: Method): 'float32' | 'float16' {
  return method.endsWith('16') ? 'float16' : 'float32';
}
