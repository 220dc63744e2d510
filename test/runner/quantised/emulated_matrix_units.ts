import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {fragment, leftType, rightType, sumType} from '../../../src/internal';
import {ProductMatrixProgram} from '../../../runner/quantised/webgpu/product_matrix';

/** A fragment for a device without matrix units: every invocation holds all of it, and computes it. */
const emulation = `
struct Fragment { values : array<f32, ${fragment * fragment}> };
fn loadRows(at : u32, stride : u32) -> Fragment {
  var loaded : Fragment;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) { loaded.values[i * ${fragment}u + j] = tiles[at + i * stride + j]; }
  }
  return loaded;
}
fn loadColumns(at : u32, stride : u32) -> Fragment {
  var loaded : Fragment;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) { loaded.values[i * ${fragment}u + j] = tiles[at + j * stride + i]; }
  }
  return loaded;
}
fn multiplyAccumulate(a : Fragment, b : Fragment, c : Fragment) -> Fragment {
  var left = a;
  var right = b;
  var sums = c;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) {
      var sum = sums.values[i * ${fragment}u + j];
      for (var k = 0u; k < ${fragment}u; k++) { sum += left.values[i * ${fragment}u + k] * right.values[k * ${fragment}u + j]; }
      sums.values[i * ${fragment}u + j] = sum;
    }
  }
  return sums;
}
fn storeRows(at : u32, sums : Fragment, stride : u32) {
  var stored = sums;
  // All invocations of a subgroup hold the same: each writes its share.
  for (var i = localIndex % 32u; i < ${fragment * fragment}u; i += 32u) {
    staged[at + i / ${fragment}u * stride + i % ${fragment}u] = stored.values[i];
  }
}
fn float16Values(words : vec2<i32>) -> vec4<f32> {
  let bits = bitcast<vec2<u32>>(words);
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
`;

const replacements: Array<[from: string, to: string]> = [
  [`subgroupMatrixLoad<${leftType}, row_major>(&tiles, `, 'loadRows('],
  [`subgroupMatrixLoad<${rightType}, col_major>(&tiles, `, 'loadColumns('],
  ['subgroupMatrixStore<row_major>(&staged, ', 'storeRows('],
  ['subgroupMatrixMultiplyAccumulate(', 'multiplyAccumulate('],
  [sumType, 'Fragment'],
  ['bitcast<vec4<f16>>(', 'float16Values('],
  ['array<f16, ', 'array<f32, '],
];

/** The product's program for a device without matrix units and float16: the same but for what the extensions do. */
export class EmulatedProductProgram extends ProductMatrixProgram {
  override getUserCode(): string {
    let text = super.getUserCode();
    for (const [from, to] of replacements) {
      expect(text).to.include(from);
      text = text.replaceAll(from, to);
    }
    return emulation + text;
  }

  override run(backend: WebGPUBackend): TensorInfo {
    const {inputs, uniforms, outputType} = this.spec;
    return backend.runWebGPUProgram(
      this,
      Object.values(inputs).map(({tensor}) => tensor),
      outputType,
      Object.values(uniforms).map(({type, value}) => ({type: type === 'i32' ? 'int32' : 'float32', data: [value]})),
    );
  }
}
