import type {Tensor4D, TensorInfo} from '@tensorflow/tfjs-core';
import {backend, engine, grads, tidy} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../attention/attention_kernels.js';
import {compileAhead} from '../kernels/compile_ahead.js';
import {checkBackend} from '../ops/check_arguments.js';
import {pbsAttention} from '../ops/pbs_attention.js';
import type {AttentionShape} from './attention_shape.js';
import {checkShape, shapesOf} from './attention_shape.js';

const op = 'warmUpAttention';

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
  list.forEach((shape, i) =>
    checkShape(
      op,
      Array.isArray(shapes) ? `shapes[${i}]` : 'shapes',
      shape,
      '{heads, queryLength, headDim} or an array of them',
    ),
  );
  checkBackend(op, PBSAttention);
  await compileAhead(op, () => list.forEach(runOn));
}

/** What every backend that has the kernels can. */
interface TensorMaker {
  makeTensorInfo(shape: number[], dtype: 'float32'): TensorInfo;
}

/** On tensors without values. */
function runOn(shape: AttentionShape): void {
  const {options, gradients = false} = shape;
  tidy(() => {
    const makers = backend() as unknown as TensorMaker;
    const [query, key, value] = shapesOf(shape).map(
      (dims) => engine().makeTensorFromTensorInfo(makers.makeTensorInfo(dims, 'float32')) as Tensor4D,
    );
    pbsAttention(query, key, value, options);
    if (!gradients) return;
    grads((...inputs) => pbsAttention(...(inputs as [Tensor4D, Tensor4D, Tensor4D]), options))([query, key, value]);
  });
}
