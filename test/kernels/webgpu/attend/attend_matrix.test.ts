import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../../../src/attention/block_geometry';
import {attend} from '../../../../src/kernels/cpu/attend/attend';
import {AttendMatrixProgram} from '../../../../src/kernels/webgpu/attend/attend_matrix';
import {fragment} from '../../../../src/kernels/webgpu/runtime/device_features';
import {leftType, rightType, sumType} from '../../../../src/kernels/webgpu/wgsl/matrix_units';
import type {Inputs} from '../../../reference/attention';
import {randomInputs} from '../../../reference/attention';
import {cpuCall} from '../../../reference/cpu_call';
import {testBackends} from '../../../setup/environment';

const load = (name: string, memory: string, at: string) => `
fn ${name}(at : u32, stride : u32) -> Fragment {
  var loaded : Fragment;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) { loaded.values[i * ${fragment}u + j] = ${memory}[at + ${at}]; }
  }
  return loaded;
}`;

/** A fragment for a device without matrix units: every invocation holds all of it, and computes it. */
const emulation = `
struct Fragment { values : array<f32, ${fragment * fragment}> };
${load('loadTileRows', 'tiles', 'i * stride + j')}
${load('loadTileColumns', 'tiles', 'j * stride + i')}
${load('loadWeights', 'weightRows', 'i * stride + j')}
${load('loadScores', 'scoreRows', 'i * stride + j')}
fn storeScores(at : u32, sums : Fragment, stride : u32) {
  var stored = sums;
  // All invocations of a subgroup hold the same: each writes its share.
  for (var i = localIndex % 32u; i < ${fragment * fragment}u; i += 32u) {
    scoreRows[at + i / ${fragment}u * stride + i % ${fragment}u] = stored.values[i];
  }
}
fn multiplyAccumulate(a : Fragment, b : Fragment, c : Fragment) -> Fragment {
  var left = a;
  var right = b;
  var sums = c;
  for (var i = 0u; i < ${fragment}u; i++) {
    for (var j = 0u; j < ${fragment}u; j++) {
      for (var k = 0u; k < ${fragment}u; k++) {
        sums.values[i * ${fragment}u + j] += left.values[i * ${fragment}u + k] * right.values[k * ${fragment}u + j];
      }
    }
  }
  return sums;
}
var<workgroup> shuffled : array<f32, 128>;
fn shuffleXor(x : f32, mask : u32) -> f32 {
  shuffled[localIndex] = x;
  workgroupBarrier();
  let other = shuffled[localIndex ^ mask];
  workgroupBarrier();
  return other;
}
`;

const replacements: Array<[from: string, to: string]> = [
  [`subgroupMatrixLoad<${leftType}, row_major>(&tiles, `, 'loadTileRows('],
  [`subgroupMatrixLoad<${rightType}, col_major>(&tiles, `, 'loadTileColumns('],
  [`subgroupMatrixLoad<${rightType}, row_major>(&tiles, `, 'loadTileRows('],
  [`subgroupMatrixLoad<${leftType}, row_major>(&weightRows, `, 'loadWeights('],
  [`subgroupMatrixLoad<${sumType}, row_major>(&scoreRows, `, 'loadScores('],
  ['subgroupMatrixStore<row_major>(&scoreRows, ', 'storeScores('],
  ['subgroupMatrixMultiplyAccumulate(', 'multiplyAccumulate('],
  ['subgroupShuffleXor(', 'shuffleXor('],
  [sumType, 'Fragment'],
  ['f16', 'f32'],
];

/** The program for a device without matrix units and float16: the same but for what the extensions do, and rounding. */
class EmulatedProgram extends AttendMatrixProgram {
  override getUserCode(): string {
    let text = super.getUserCode();
    for (const [from, to] of replacements) {
      expect(text).to.include(from);
      text = text.replaceAll(from, to);
    }
    return emulation + text;
  }

  override run(backend: WebGPUBackend): TensorInfo {
    const {inputs, uniforms} = this.spec;
    return backend.runWebGPUProgram(
      this,
      Object.values(inputs).map(({tensor}) => tensor),
      'float32',
      Object.values(uniforms).map(({type, value}) => ({type: type === 'i32' ? 'int32' : 'float32', data: [value]})),
    );
  }
}

if (testBackends().includes('webgpu')) {
  describe('attention on matrix units, emulated [webgpu]', function () {
    // In software the emulation takes seconds to compile.
    this.timeout(600_000);
    before(() => setBackend('webgpu'));
    // Two tiles of query rows, and more than two of keys.
    const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 70, headDim: 16}, 4);

    async function run({query, key, value, queryShape, keyShape}: Inputs): Promise<Float32Array[]> {
      const gpu = activeBackend() as WebGPUBackend;
      const upload = (values: Float32Array, shape: number[]) => gpu.makeTensorInfo(shape, 'float32', values);
      const tensors = {query: upload(query, queryShape), key: upload(key, keyShape), value: upload(value, keyShape)};
      const geometry = blockGeometry(tensors.query, tensors.key, {blockSize: 70, keyBlockSize: 70, segmentSize: 70});
      const attrs = {geometry, scale: 0.25, causal: true};
      const program = new EmulatedProgram({op: 'test', backend: gpu, precision: 'float16', ...tensors, ...attrs});
      const output = program.run(gpu);
      const values = (await gpu.read(output.dataId)) as Float32Array;
      [...Object.values(tensors), output].forEach(({dataId}) => gpu.disposeData(dataId));
      return [values, attend(cpuCall({query, key, value}, attrs))];
    }

    it('is attention', async () => {
      const [actual, expected] = await run(inputs);
      actual.forEach((x, i) => expect(x, `value ${i}`).to.be.closeTo(expected[i], 1e-4));
    });

    it('keeps what is not finite from rows that do not see it, and gives it to those that do', async () => {
      const value = inputs.value.slice();
      value[37 * 16 + 1] = NaN;
      value[40 * 16 + 2] = Infinity;
      value[69 * 16 + 3] = -Infinity;
      const key = inputs.key.slice();
      key[66 * 16] = NaN;
      const [actual, expected] = await run({...inputs, key, value});
      actual.forEach((x, i) => {
        if (Number.isNaN(expected[i])) expect(Number.isFinite(x), `value ${i}`).to.equal(false);
        else if (Number.isFinite(expected[i])) expect(x, `value ${i}`).to.be.closeTo(expected[i], 1e-4);
        else expect(x, `value ${i}`).to.equal(expected[i]);
      });
    });
  });
}
