import type {Tensor4D, TensorInfo} from '@tensorflow/tfjs-core';
import {PBSAttention} from '../attention/attention_kernels.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {whyExact} from '../attention/cost_model.js';
import type {AttentionArithmetic} from '../kernels/backend_arithmetic.js';
import {backendArithmetic} from '../kernels/backend_arithmetic.js';
import {backendCosts} from '../kernels/backend_costs.js';
import {checkBackend, pbsAttentionAttrs} from '../ops/check_arguments.js';
import type {AttentionShape} from './attention_shape.js';
import {checkShape, shapesOf} from './attention_shape.js';

const op = 'attentionPrecision';

/**
 * What a call of this shape multiplies with on the active backend and its device. `'float32'`; `'float16'`, products and sums of up to 16
 * of them, longer sums in float32; or `'matrix units'`, products of float16 and sums in float32. Nothing but `'float32'` without
 * `options: {precision: 'float16'}`, on other backends than WebGPU, on a device without float16, and where few query rows meet many keys, as in
 * decoding, which waits for memory. How blocks are scored is another matter (docs/choosing-options.md).
 *
 * ```js
 * attentionPrecision({heads: 8, queryLength: 4096, headDim: 64, options: {precision: 'float16'}});
 * ```
 *
 * @param shape see {@link AttentionShape}; `gradients`, which are float32, count for nothing.
 * @throws Error if a shape is not of that form, or an option of a call would be refused.
 */
export function attentionPrecision(shape: AttentionShape): AttentionArithmetic {
  checkShape(op, 'shape', shape);
  checkBackend(op, PBSAttention);
  const [query, key, value] = shapesOf(shape).map((dims): TensorInfo => ({shape: dims, dtype: 'float32', dataId: {}}));
  const attrs = pbsAttentionAttrs(op, shape.options, query as Tensor4D, key as Tensor4D);
  const geometry = blockGeometry(query, key, attrs, value);
  const isSparse = whyExact(geometry, attrs, backendCosts(geometry, attrs.precision)) === undefined;
  return backendArithmetic({op, geometry, ...attrs}, isSparse);
}
