import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {hasMatrixUnits} from '../../src/internal';
import {hasKernel, runKernel} from '../llama/kernels/run_kernel';
import type {PackedTensors} from './ops';

/**
 * float16, two a word, as tfjs has no type for it: int32 `[rows, columns / 2]` for `[rows, columns]`, columns a multiple of 8. What
 * float16 does not reach is brought to ±65,504.
 */
export type Float16Tensor = tf.Tensor2D;

/** Columns of a `Float16Tensor`, and headDim of `joinHeadsFloat16`, are multiples of this: what a shader reads at once. */
export const FLOAT16_VECTOR = 8;

/** Kernel: inputs of a packed matrix. Output float16 `[outputs, inputs]`. */
export const UnpackFloat16 = 'UnpackFloat16';
/** Kernel: inputs `x`, float32 `[rows, columns]`, and `norm`, float32 `[columns]`. Output float16 `[rows, columns]`. */
export const NormaliseFloat16 = 'NormaliseFloat16';
export interface NormaliseFloat16Attrs extends tf.NamedAttrMap {
  epsilon: number;
}
/** Kernel: input `x`, float32 `[1, heads, rows, headDim]`. Output float16 `[rows, heads * headDim]`. */
export const JoinHeadsFloat16 = 'JoinHeadsFloat16';
/**
 * Kernel: inputs `x`, float16 `[rows, inputs]`, `weight`, float16 `[outputs, inputs]`, and where there are some: `bias`, float32
 * `[outputs]`; `residual`, float32 `[rows, outputs]`, without `headDim`. Output float32 `[rows, outputs]`, or with the attribute
 * `headDim` `[outputs / headDim, rows, headDim]`.
 */
export const Float16Product = 'Float16Product';
/**
 * Kernel: inputs `x`, float16 `[rows, inputs]`, `weight` and `up`, float16 `[outputs, inputs]`, and where there is one `bias`, float32
 * `[2 * outputs]`, of `weight` and then of `up`. Output float16 `[rows, outputs]`.
 */
export const Float16SwiGLUProduct = 'Float16SwiGLUProduct';

export type ProductInputs<T> = {x: T; weight: T; up?: T; bias?: T; residual?: T};
export interface ProductAttrs extends tf.NamedAttrMap {
  /** 0 where the output is not by heads. */
  headDim: number;
}

/** Whether the current backend multiplies in float16, which takes matrix units. */
export function hasFloat16Products(): boolean {
  return hasKernel(Float16Product) && hasMatrixUnits((tf.backend() as WebGPUBackend).device);
}

export const unpackFloat16 = ({type, shape, quants, scales}: PackedTensors<tf.Tensor2D>): Float16Tensor =>
  runKernel(UnpackFloat16, {quants, scales}, {type, shape});

/** `norm · x / sqrt(mean(x²) + epsilon)` of each row. */
export const normaliseFloat16 = (x: tf.Tensor2D, norm: tf.Tensor1D, epsilon: number): Float16Tensor =>
  runKernel(NormaliseFloat16, {x, norm}, {epsilon});

export const joinHeadsFloat16 = (x: tf.Tensor4D): Float16Tensor => runKernel(JoinHeadsFloat16, {x}, {});

/** `residual + x · weightᵀ + bias`, with sums in float32. */
export const productFloat16 = (inputs: ProductInputs<tf.Tensor>): tf.Tensor2D =>
  runKernel(Float16Product, present(inputs), {headDim: 0});

/** `x · weightᵀ + bias`, with sums in float32, each `headDim` outputs a matrix. */
export const productByHeadsFloat16 = (inputs: ProductInputs<tf.Tensor>, headDim: number): tf.Tensor3D =>
  runKernel(Float16Product, present(inputs), {headDim});

/** `silu(x · weightᵀ) · (x · upᵀ)`, with sums in float32. */
export const swigluProductFloat16 = (inputs: ProductInputs<tf.Tensor> & {up: tf.Tensor}): Float16Tensor =>
  runKernel(Float16SwiGLUProduct, present(inputs), {});

/** tfjs takes an input that is undefined for one that is there. */
const present = (inputs: ProductInputs<tf.Tensor>): tf.NamedTensorMap =>
  Object.fromEntries(Object.entries(inputs).filter(([, tensor]) => tensor !== undefined));
