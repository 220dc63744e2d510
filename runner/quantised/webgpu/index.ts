import {registerKernel, type KernelFunc, type TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {type PackedAttrs, type PackedInputs, PackedProduct, UnpackRows, UnpackTransposed} from '../ops';
import {PackedProductProgram} from './product_program';
import {UnpackProgram, UnpackRowsProgram} from './unpack_program';

// Importing this file registers the kernels of packed matrices for the webgpu backend, the only one that has them. It loads no backend.

type Inputs = PackedInputs & Record<'x' | 'ids', TensorInfo>;

function register(name: string, run: (backend: WebGPUBackend, inputs: Inputs, attrs: PackedAttrs) => TensorInfo): void {
  const kernelFunc = ({inputs, backend, attrs}: {inputs: Inputs; backend: WebGPUBackend; attrs: PackedAttrs}) =>
    run(backend, inputs, attrs);
  registerKernel({kernelName: name, backendName: 'webgpu', kernelFunc: kernelFunc as unknown as KernelFunc});
}

register(PackedProduct, (backend, {x, ...matrix}, attrs) =>
  new PackedProductProgram({x, matrix: {...matrix, ...attrs}}).run(backend),
);
register(UnpackTransposed, (backend, matrix, attrs) => new UnpackProgram({...matrix, ...attrs}).run(backend));
register(UnpackRows, (backend, {ids, ...matrix}, attrs) =>
  new UnpackRowsProgram({...matrix, ...attrs}, ids).run(backend),
);
