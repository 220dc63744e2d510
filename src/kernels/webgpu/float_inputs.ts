import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {Take} from '../../attention/scratch.js';
import {UnpackedFloatsProgram} from './pack_float16.js';
import {AttentionProgram} from './runtime/program.js';

/**
 * The inputs of a kernel with the floats in them that they promise. tfjs's cast of int32 or bool to float32 changes the
 * type alone and leaves integers in the buffer, which its own shaders convert as they read. Ours read vectors of floats.
 *
 * @param keepsPacked whether packed keys and values are read as they are.
 */
export function floatInputs<Inputs extends object>(
  inputs: Inputs,
  backend: WebGPUBackend,
  scratch: Take<TensorInfo>,
  {keepsPacked}: {keepsPacked: boolean},
): Inputs {
  const floats = Object.entries(inputs as Record<string, TensorInfo>).map(([name, x]) => {
    const isCast = x.dtype === 'float32' && backend.tensorMap.get(x.dataId).dtype !== 'float32';
    const isPacked = (name === 'key' || name === 'value') && x.dtype === 'int32';
    if (isPacked && !keepsPacked) return [name, scratch(new UnpackedFloatsProgram(x).run(backend))];
    return [name, isCast ? scratch(new FloatsProgram(x).run(backend)) : x];
  });
  return Object.fromEntries(floats) as Inputs;
}

export class FloatsProgram extends AttentionProgram<object> {
  constructor(integers: TensorInfo) {
    super({
      name: 'Floats',
      inputs: {integers},
      outputShape: integers.shape,
      variant: {},
    });
  }

  protected shader(): string {
    return `
// An invocation converts one number.
fn main(index : i32) {
  if (index < uniforms.invocations) {
    result[index] = f32(integers[index]);
  }
}`;
  }
}
