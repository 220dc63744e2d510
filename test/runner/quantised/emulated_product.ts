import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {ProductMatrixProgram} from '../../../runner/quantised/webgpu/product_matrix';
import {emulateMatrixUnits} from '../../reference/emulated_matrix_units';

/** The product's program for a device without matrix units and float16. */
export class EmulatedProductProgram extends ProductMatrixProgram {
  override getUserCode(): string {
    return emulateMatrixUnits(super.getUserCode(), this.spec.variant.units);
  }

  override run(backend: WebGPUBackend): TensorInfo {
    this.spec.extensions = [];
    return super.run(backend);
  }
}
