import {registerKernel, type KernelFunc, type TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {
  elementTypeOf,
  GatedProduct,
  type GatedProductAttrs,
  JoinHeadsFloat16,
  NormaliseFloat16,
  type NormaliseFloat16Attrs,
  Product,
  type ProductAttrs,
  type ProductInputs,
  UnpackFloat16,
} from '../product_ops';
import type {Activation} from '../../llama/kernels/gated_activation';
import {type PackedAttrs, type PackedInputs, PackedProduct, UnpackRows, UnpackTransposed} from '../ops';
import {JoinHeadsFloat16Program, NormaliseFloat16Program, UnpackFloat16Program} from './float16_programs';
import {ProductFloat32Program} from './product_float32';
import {ProductMatrixProgram} from './product_matrix';
import {chooseTile, productUnits} from './product_tiles';
import {PackedProductProgram} from './product_program';
import {UnpackProgram, UnpackRowsProgram} from './unpack_program';

// Importing this file registers the kernels of packed matrices for the webgpu backend, the only one that has them. It loads no backend.

function register<Inputs, Attrs>(
  kernelName: string,
  run: (backend: WebGPUBackend, inputs: Inputs, attrs: Attrs) => TensorInfo,
): void {
  const kernelFunc = ({inputs, backend, attrs}: {inputs: Inputs; backend: WebGPUBackend; attrs: Attrs}) =>
    run(backend, inputs, attrs);
  registerKernel({kernelName, backendName: 'webgpu', kernelFunc: kernelFunc as unknown as KernelFunc});
}

register<PackedInputs & {x: TensorInfo}, PackedAttrs>(PackedProduct, (backend, {x, ...matrix}, attrs) =>
  new PackedProductProgram({x, matrix: {...matrix, ...attrs}}).run(backend),
);
register<PackedInputs, PackedAttrs>(UnpackTransposed, (backend, matrix, attrs) =>
  new UnpackProgram({...matrix, ...attrs}).run(backend),
);
register<PackedInputs & {ids: TensorInfo}, PackedAttrs>(UnpackRows, (backend, {ids, ...matrix}, attrs) =>
  new UnpackRowsProgram({...matrix, ...attrs}, ids).run(backend),
);

register<PackedInputs, PackedAttrs>(UnpackFloat16, (backend, matrix, attrs) =>
  new UnpackFloat16Program({...matrix, ...attrs}).run(backend),
);
register<Record<'x' | 'norm', TensorInfo>, NormaliseFloat16Attrs>(NormaliseFloat16, (backend, {x, norm}, {epsilon}) =>
  new NormaliseFloat16Program(x, norm, epsilon).run(backend),
);
register<Record<'x', TensorInfo>, object>(JoinHeadsFloat16, (backend, {x}) =>
  new JoinHeadsFloat16Program(x).run(backend),
);

function multiply(
  backend: WebGPUBackend,
  inputs: ProductInputs<TensorInfo>,
  headDim: number,
  activation?: Activation,
): TensorInfo {
  const {x, weight, up} = inputs;
  if (elementTypeOf(x) === 'float32') return new ProductFloat32Program(inputs, headDim, activation).run(backend);
  const tile = chooseTile(backend.device, x.shape[0], weight.shape[0] * (up ? 2 : 1));
  const units = productUnits(backend.device)!;
  return new ProductMatrixProgram(inputs, headDim, {tile, units}, activation).run(backend);
}
register<ProductInputs<TensorInfo>, ProductAttrs>(Product, (backend, inputs, {headDim}) =>
  multiply(backend, inputs, headDim),
);
register<ProductInputs<TensorInfo>, GatedProductAttrs>(GatedProduct, (backend, inputs, {activation}) =>
  multiply(backend, inputs, 0, activation),
);
