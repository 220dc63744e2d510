import type {Tensor4D, TensorInfo} from '@tensorflow/tfjs-core';
import {backend, engine, grads, tidy} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../attention/attention_kernels.js';
import {compileAhead} from '../kernels/compile_ahead.js';
import {check, checkBackend, describe} from '../ops/check_arguments.js';
import type {PBSAttentionOptions} from '../ops/options.js';
import {pbsAttention} from '../ops/pbs_attention.js';

const op = 'warmUpAttention';

/** A call that is to come. */
export interface AttentionShape {
  /** Sequences. Default 1. */
  batch?: number;
  /** Heads of the query. */
  heads: number;
  /** Heads of key and value. Default `heads`. */
  keyValueHeads?: number;
  /** Rows of the query. */
  queryLength: number;
  /** Keys. Default `queryLength`. */
  keyLength?: number;
  /** Values of a row of query and key. */
  headDim: number;
  /** Values of a row of the value. Default `headDim`. */
  valueDim?: number;
  /** As `pbsAttention` gets them; `{threshold: 1}` for `flashAttention`. What `auto` chooses for the shape is compiled. Default: its own. */
  options?: Omit<PBSAttentionOptions, 'plan' | 'onReport' | 'keyLengths'>;
  /** Whether the gradients by query, key and value are wanted, too. Default `false`. */
  gradients?: boolean;
}

const sizes = ['batch', 'heads', 'keyValueHeads', 'queryLength', 'keyLength', 'headDim', 'valueDim'] as const;
const known: readonly string[] = [...sizes, 'options', 'gradients'];

/**
 * Compiles the programs of calls that are to come, so that the first of them does not wait for shaders: beside the work of this thread on WebGPU, and on WebGL
 * where the browser can. Nothing is computed, but memory for a call of each shape is taken and given back to the backend. What
 * runs meanwhile compiles what it needs by itself. On other backends there is nothing to compile.
 *
 * ```js
 * await warmUpAttention({heads: 8, queryLength: 4096, headDim: 64});
 * await warmUpAttention([
 *   {heads: 32, keyValueHeads: 8, queryLength: 8192, headDim: 128, options: {precision: 'float16'}},
 *   {heads: 32, keyValueHeads: 8, queryLength: 1, keyLength: 8192, headDim: 128, options: {threshold: 1}},
 * ]);
 * ```
 *
 * @param shapes see {@link AttentionShape}; one or several.
 * @throws Error (rejects) if a shape is not of that form, if a call of the shape would
 *     be refused, or a program does not compile.
 */
export async function warmUpAttention(shapes: AttentionShape | readonly AttentionShape[]): Promise<void> {
  const list = Array.isArray(shapes) ? (shapes as readonly AttentionShape[]) : [shapes as AttentionShape];
  list.forEach((shape, i) => checkShape(Array.isArray(shapes) ? `shapes[${i}]` : 'shapes', shape));
  checkBackend(op, PBSAttention);
  await compileAhead(op, () => list.forEach(runOn));
}

/** What every backend that has the kernels can. */
interface TensorMaker {
  makeTensorInfo(shape: number[], dtype: 'float32'): TensorInfo;
}

/** On tensors without values. */
function runOn(shape: AttentionShape): void {
  const {batch = 1, heads, keyValueHeads = heads, queryLength, keyLength = queryLength} = shape;
  const {headDim, valueDim = headDim, options, gradients = false} = shape;
  tidy(() => {
    const makers = backend() as unknown as TensorMaker;
    const tensor = (...dims: number[]) =>
      engine().makeTensorFromTensorInfo(makers.makeTensorInfo(dims, 'float32')) as Tensor4D;
    const query = tensor(batch, heads, queryLength, headDim);
    const key = tensor(batch, keyValueHeads, keyLength, headDim);
    const value = tensor(batch, keyValueHeads, keyLength, valueDim);
    pbsAttention(query, key, value, options);
    if (!gradients) return;
    grads((...inputs) => pbsAttention(...(inputs as [Tensor4D, Tensor4D, Tensor4D]), options))([query, key, value]);
  });
}

function checkShape(name: string, shape: AttentionShape): void {
  const takes = '{heads, queryLength, headDim} or an array of them';
  check(typeof shape === 'object' && shape !== null, op, name, `got ${describe(shape)}`, takes);
  for (const part of Object.keys(shape)) check(known.includes(part), op, name, `got '${part}'`, known.join(', '));
  for (const part of sizes) {
    const size = shape[part];
    const isNeeded = part === 'heads' || part === 'queryLength' || part === 'headDim';
    const isSize = Number.isSafeInteger(size) && size! > 0;
    const isFine = isSize || (size === undefined && !isNeeded);
    check(isFine, op, `${name}.${part}`, `got ${describe(size)}`, 'a positive integer');
  }
}
