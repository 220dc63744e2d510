import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../../../src/attention/block_geometry';
import {permute} from '../../../../src/kernels/cpu/permute/permute';
import {sampledMass as massOnCPU} from '../../../../src/kernels/cpu/select/sampled_mass';
import {sampledMass} from '../../../../src/kernels/webgpu/select/sampled_mass';
import {listMatrixUnits} from '../../../../src/kernels/webgpu/runtime/device_features';
import {
  SampledMassMatrixProgram,
  sampledMassMatrixFits,
  sampleUnits,
} from '../../../../src/kernels/webgpu/select/sampled_mass_matrix';
import {SampledScoresProgram} from '../../../../src/kernels/webgpu/select/sampled_scores';
import type {WebGPUCall} from '../../../../src/kernels/webgpu/webgpu_call';
import {testBackends} from '../../../setup/environment';
import type {RectangularShape} from '../../../reference/attention';
import {randomInputs} from '../../../reference/attention';
import {cpuCall} from '../../../reference/cpu_call';
import {all, emulateMatrixUnits, MATRIX_UNITS} from '../../../reference/emulated_matrix_units';

interface Case {
  shape: RectangularShape;
  blockSize: number;
  keyBlockSize: number;
  segmentSize: number;
  causal?: boolean;
  lengths?: number[];
}

const cases: Record<string, Case> = {
  'the default sizes': {
    shape: {heads: 4, keyValueHeads: 2, length: 1100, headDim: 64},
    ...{blockSize: 128, keyBlockSize: 64, segmentSize: 256},
  },
  'a chunk, two blocks of keys a tile': {
    shape: {heads: 2, keyValueHeads: 1, length: 200, keyLength: 900, headDim: 64},
    ...{blockSize: 64, keyBlockSize: 32, segmentSize: 128},
  },
  'two tiles a block of keys, head dim 128': {
    shape: {heads: 2, length: 900, headDim: 128},
    ...{blockSize: 128, keyBlockSize: 128, segmentSize: 256},
  },
  'no causal mask': {
    shape: {heads: 2, length: 500, keyLength: 700, headDim: 64},
    ...{blockSize: 128, keyBlockSize: 64, segmentSize: 256, causal: false},
  },
  'padding, head dim 48': {
    shape: {batch: 2, heads: 2, keyValueHeads: 1, length: 1024, headDim: 48},
    ...{blockSize: 128, keyBlockSize: 64, segmentSize: 256, lengths: [1024, 700]},
  },
  'blocks of 100 and 16, head dim 20': {
    shape: {length: 600, headDim: 20},
    ...{blockSize: 100, keyBlockSize: 16, segmentSize: 64},
  },
};

/** As small as it gets: a compiler in software takes no more emulated fragments. */
const small: Case = {
  shape: {heads: 2, keyValueHeads: 1, length: 300, headDim: 8},
  ...{blockSize: 64, keyBlockSize: 16, segmentSize: 64},
};

if (testBackends().includes('webgpu')) {
  describe('sampled mass on matrix units [webgpu]', function () {
    this.timeout(300_000);
    before(() => setBackend('webgpu'));

    for (const [name, given] of Object.entries(cases)) {
      it(`is that of the CPU but for float16: ${name}`, async function () {
        const {device} = activeBackend() as WebGPUBackend;
        if (!sampleUnits(device)) this.skip();
        await checkMass(given, (call, order) => sampledMass(call, order));
        for (const units of listMatrixUnits(device).slice(1)) {
          await checkMass(given, (call, order) => sampledMass(call, order, units));
        }
      });
    }

    for (const [name, units] of Object.entries(all ? MATRIX_UNITS : {}).filter(([, {lanes}]) => lanes === 32)) {
      it(`is that of the CPU by fragments of ${name}, emulated`, async function () {
        if (sampleUnits((activeBackend() as WebGPUBackend).device)) this.skip();
        const {getUserCode, run} = SampledMassMatrixProgram.prototype;
        Object.assign(SampledMassMatrixProgram.prototype, {
          getUserCode(this: SampledMassMatrixProgram) {
            return emulateMatrixUnits(getUserCode.call(this), units, ['keys']);
          },
          run(this: SampledMassMatrixProgram, backend: WebGPUBackend) {
            this.spec.extensions = [];
            return run.call(this, backend);
          },
        });
        try {
          await checkMass(small, (call, order) => sampledMass(call, order, units));
        } finally {
          Object.assign(SampledMassMatrixProgram.prototype, {getUserCode, run});
        }
      });
    }
  });
}

/** Holds the sampled mass of a case against that of the CPU, by the same order of keys. */
async function checkMass(
  {shape, causal = true, lengths, ...sizes}: Case,
  massOf: (call: WebGPUCall, order: TensorInfo) => TensorInfo,
): Promise<void> {
  const gpu = activeBackend() as WebGPUBackend;
  const inputs = randomInputs(shape, 7);
  const owned: TensorInfo[] = [];
  const upload = (values: Float32Array | Int32Array, of: number[]) => {
    const info = gpu.makeTensorInfo(of, values instanceof Int32Array ? 'int32' : 'float32', values);
    owned.push(info);
    return info;
  };
  const [query, key] = [upload(inputs.query, inputs.queryShape), upload(inputs.key, inputs.keyShape)];
  const geometry = blockGeometry(query, key, {...sizes, causal});
  const keyLengths = lengths && Int32Array.from(lengths);
  const attrs = {geometry, scale: 1 / Math.sqrt(geometry.headDim), causal};
  const call = cpuCall(inputs, {...attrs, keyLengths});
  const {keyIndices} = permute(call, {permute: true, estimate: 'sampled'});
  const {means, peaks} = massOnCPU(call, keyIndices);
  const order = upload(keyIndices, [geometry.batch, geometry.heads, geometry.keyLength]);
  const padding = keyLengths && upload(keyLengths, [geometry.batch]);
  const tensors = {query, key, value: key, keyLengths: padding};
  const mass = massOf({op: 'test', backend: gpu, precision: 'float32', ...attrs, ...tensors}, order);
  owned.push(mass);
  const weighted = async (weight: number) => {
    const info = new SampledScoresProgram(mass, geometry, weight).run(gpu);
    owned.push(info);
    return (await gpu.read(info.dataId)) as Float32Array;
  };
  const [gpuMeans, both] = [await weighted(0), await weighted(1)];
  owned.forEach(({dataId}) => gpu.disposeData(dataId));
  expect(means.reduce((a, b) => a + b, 0)).to.be.above(1);
  // Scores of a few units, products rounded to 11 bits.
  means.forEach((mean, i) => {
    expect(gpuMeans[i], `mean ${i}`).to.be.closeTo(mean, 5e-4);
    expect(both[i] - gpuMeans[i], `peak ${i}`).to.be.closeTo(peaks[i], 5e-3);
  });
}

describe('where the sample runs on matrix units', () => {
  const config = {componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16};
  const deviceWith = (maxStorageBufferBindingSize: number) =>
    ({
      features: new Set(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix']),
      adapterInfo: {subgroupMinSize: 32, subgroupMaxSize: 32, subgroupMatrixConfigs: [config]},
      limits: {
        maxComputeWorkgroupStorageSize: 32_768,
        maxComputeInvocationsPerWorkgroup: 256,
        maxStorageBufferBindingSize,
        maxBufferSize: 2 ** 31,
      },
    }) as unknown as GPUDevice;
  const tensor = (shape: number[]) => ({shape}) as TensorInfo;
  const sizes = {blockSize: 128, keyBlockSize: 64, segmentSize: 256, causal: true};

  it('is where the sorted keys of all query heads fit one binding', () => {
    // A chunk over a long cache: 14 heads read 2, so their sorted keys are the largest tensor of all, 14 · 65,536 · 64 · 2 bytes.
    const geometry = blockGeometry(tensor([1, 14, 512, 64]), tensor([1, 2, 65_536, 64]), sizes);
    const bytes = 14 * 65_536 * 64 * 2;
    expect(sampledMassMatrixFits(deviceWith(bytes), geometry)).to.equal(true);
    expect(sampledMassMatrixFits(deviceWith(bytes - 4), geometry)).to.equal(false);
  });

  it('is not where blocks are of other sizes', () => {
    const fits = (changes: object) =>
      sampledMassMatrixFits(
        deviceWith(2 ** 31),
        blockGeometry(tensor([1, 1, 1024, 64]), tensor([1, 1, 1024, 64]), {...sizes, ...changes}),
      );
    expect(fits({})).to.equal(true);
    expect(fits({blockSize: 256})).to.equal(false);
    expect(fits({keyBlockSize: 8})).to.equal(false);
    expect(fits({keyBlockSize: 96, segmentSize: 192})).to.equal(false);
  });
});
