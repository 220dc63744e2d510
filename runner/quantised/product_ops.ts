import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {Activation} from '../llama/kernels/gated_activation';
import {hasKernel, runKernel} from '../llama/kernels/run_kernel';
import {type PackedTensors, unpackTransposed} from './ops';
import {productUnits} from './webgpu/product_tiles';

// Products of many rows. Their operands are float32 tensors, or float16 where matrix units multiply them; sums are float32 in either.

/**
 * float16, two a word, as tfjs has no type for it: int32 `[rows, columns / 2]` for `[rows, columns]`, columns a multiple of 8. What
 * float16 does not reach is brought to ±65,504.
 */
export type Float16Tensor = tf.Tensor2D;

/** What a product multiplies. */
export type ElementType = 'float32' | 'float16';

export const elementTypeOf = ({dtype}: tf.TensorInfo): ElementType => (dtype === 'int32' ? 'float16' : 'float32');

/** Columns of a `Float16Tensor`, outputs of a product and headDim of `joinHeadsFloat16` are multiples of this: what a shader reads at once. */
export const PRODUCT_VECTOR = 8;

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
 * Kernel: inputs `x`, `[rows, inputs]`, `weight`, float16 `[outputs, inputs]` or float32 `[inputs, outputs]` as `x` is, and where there
 * are some: `bias`, float32 `[outputs]`; `residual`, float32 `[rows, outputs]`, without `headDim`. Output float32 `[rows, outputs]`, or
 * with the attribute `headDim` `[outputs / headDim, rows, headDim]`.
 */
export const Product = 'Product';
/**
 * Kernel: inputs `x`, `weight`, and `up` like `weight`, and where there is one `bias`, float32 `[2 * outputs]`, of `weight` and then of
 * `up`. Output `[rows, outputs]`, of the type of `x`.
 */
export const GatedProduct = 'GatedProduct';
export interface GatedProductAttrs extends tf.NamedAttrMap {
  activation: Activation;
}

export type ProductInputs<T> = {x: T; weight: T; up?: T; bias?: T; residual?: T};
export interface ProductAttrs extends tf.NamedAttrMap {
  /** 0 where the output is not by heads. */
  headDim: number;
}

/** Whether the current backend has products of its own, of operands of that type: of float16 where the device has matrix units. */
export function hasProducts(type: ElementType): boolean {
  return (
    hasKernel(Product) && (type === 'float32' || productUnits((tf.backend() as WebGPUBackend).device) !== undefined)
  );
}

/** A packed matrix as a product takes it. */
export const unpack = (matrix: PackedTensors<tf.Tensor2D>, type: ElementType): tf.Tensor2D =>
  type === 'float32' ? unpackTransposed(matrix) : unpackFloat16(matrix);

export const unpackFloat16 = ({type, shape, quants, scales}: PackedTensors<tf.Tensor2D>): Float16Tensor =>
  runKernel(UnpackFloat16, {quants, scales}, {type, shape});

/** `norm · x / sqrt(mean(x²) + epsilon)` of each row. */
export const normaliseFloat16 = (x: tf.Tensor2D, norm: tf.Tensor1D, epsilon: number): Float16Tensor =>
  runKernel(NormaliseFloat16, {x, norm}, {epsilon});

export const joinHeadsFloat16 = (x: tf.Tensor4D): Float16Tensor => runKernel(JoinHeadsFloat16, {x}, {});

/** `residual + x · weightᵀ + bias`. */
export const product = (inputs: ProductInputs<tf.Tensor>): tf.Tensor2D =>
  runKernel(Product, present(inputs), {headDim: 0});

/** `x · weightᵀ + bias`, each `headDim` outputs a matrix. */
export const productByHeads = (inputs: ProductInputs<tf.Tensor>, headDim: number): tf.Tensor3D =>
  runKernel(Product, present(inputs), {headDim});

/** `activation(x · weightᵀ) · (x · upᵀ)`. */
export const gatedProduct = (inputs: ProductInputs<tf.Tensor> & {up: tf.Tensor}, activation: Activation): tf.Tensor2D =>
  runKernel(GatedProduct, present(inputs), {activation});

/** tfjs takes an input that is undefined for one that is there. */
const present = (inputs: ProductInputs<tf.Tensor>): tf.NamedTensorMap =>
  Object.fromEntries(Object.entries(inputs).filter(([, tensor]) => tensor !== undefined));
