import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, dispose, setBackend, tensor4d} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {FlashAttentionOptions} from '../../../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../../../src/index';
import {AttendMatrixProgram} from '../../../../src/kernels/webgpu/attend/attend_matrix';
import {matrixTiles} from '../../../../src/kernels/webgpu/attend/attend_matrix_tile';
import type {MatrixUnits} from '../../../../src/kernels/webgpu/runtime/device_features';
import {
  adapterInfoOf,
  listMatrixUnits,
  matrixUnitsOf,
  recordAdapterInfo,
} from '../../../../src/kernels/webgpu/runtime/device_features';
import {blockGeometry} from '../../../../src/attention/block_geometry';
import {attend} from '../../../../src/kernels/cpu/attend/attend';
import {cpuCall} from '../../../reference/cpu_call';
import {relativeL1} from '../../../golden/golden_cases';
import {randomInputs, tensors, type RectangularShape} from '../../../reference/attention';
import {emulateMatrixUnits, MATRIX_UNITS, OTHER_UNITS, UNITS} from '../../../reference/emulated_matrix_units';
import {testBackends} from '../../../setup/environment';

/** Calls that take every way through the program, few and small: emulated fragments take their time. */
const cases: Array<[name: string, shape: RectangularShape, options: () => FlashAttentionOptions]> = [
  ['values of another dim', {length: 40, headDim: 10, valueDim: 20}, () => ({causal: false})],
  [
    'forms under a causal mask alone',
    {heads: 2, keyValueHeads: 1, length: 47, keyLength: 52, headDim: 8},
    () => ({window: 20, softCap: 5, alibiSlopes: [0.5, 0.25]}),
  ],
  [
    'every form at once',
    {batch: 2, heads: 2, keyValueHeads: 1, length: 47, keyLength: 52, headDim: 8},
    () => ({
      ...{queryOffset: 0, scale: 0.5, keyLengths: [12, 41], window: 10, softCap: 0.7},
      ...{alibiSlopes: [0.0625, 0.004], sinks: [-1.5, -2.5], mask: tensor4d([0.3, -1, 2, -0.5], [2, 2, 1, 1])},
    }),
  ],
];

if (testBackends().includes('webgpu')) {
  describe('attention on matrix units, emulated [webgpu]', function () {
    this.timeout(300_000);
    const {getUserCode, run} = AttendMatrixProgram.prototype;
    const {manyRows} = matrixTiles;
    let restore = () => {};

    before(async function () {
      await setBackend('webgpu');
      const {device} = activeBackend() as WebGPUBackend;
      // Where there are some, the other tests in float16 run on them.
      if (matrixUnitsOf(device)) this.skip();
      const features = device.features;
      Object.defineProperty(device, 'features', {value: new Set([...features, ...needed]), configurable: true});
      list(UNITS);
      AttendMatrixProgram.prototype.getUserCode = function () {
        return emulateMatrixUnits(getUserCode.call(this), this.spec.variant.tile.units, ['query']);
      };
      AttendMatrixProgram.prototype.run = function (backend) {
        this.spec.extensions = [];
        return run.call(this, backend);
      };
      // Many rows, since float32 in place of float16 leaves no room for the tiles of few.
      matrixTiles.manyRows = 0;
      restore = () => {
        matrixTiles.manyRows = manyRows;
        Object.assign(AttendMatrixProgram.prototype, {getUserCode, run});
        Object.defineProperty(device, 'features', {value: features, configurable: true});
        recordAdapterInfo(device, device.adapterInfo);
      };
    });
    after(() => restore());

    const needed = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] as GPUFeatureName[];

    /** The device as one with these units. */
    function list(units: MatrixUnits): void {
      const {device, adapterInfo} = activeBackend() as WebGPUBackend & {adapterInfo: {info?: GPUAdapterInfo}};
      recordAdapterInfo(device, {...adapterInfo, ...listOf(units)} as unknown as GPUAdapterInfo);
    }
    afterEach(() => list(UNITS));

    for (const [name, shape, options] of cases) {
      it(`is exact attention to the digits of float16: ${name}`, async () => {
        const [q, k, v] = tensors(randomInputs(shape, 31));
        const given = options();
        const expected = flashAttention(q, k, v, given);
        const got = flashAttention(q, k, v, {...given, precision: 'float16'});
        expect(relativeL1(await got.data(), await expected.data())).to.be.within(1e-5, 5e-3);
        dispose([q, k, v, got, expected]);
      });
    }

    for (const [name, units] of OTHER_UNITS) {
      it(`is exact attention to the digits of float16 by fragments of ${name}`, async () => {
        list(units);
        const [q, k, v] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 47, headDim: 10}, 33));
        // Rises by more than the headroom, so that sums pass through memory.
        const given = {scale: 9, sinks: [-1.5, -2.5]};
        const expected = flashAttention(q, k, v, given);
        const got = flashAttention(q, k, v, {...given, precision: 'float16'});
        expect(relativeL1(await got.data(), await expected.data())).to.be.within(1e-5, 5e-3);
        dispose([q, k, v, got, expected]);
      });
    }

    it('keeps what is not finite from rows that do not see it, and gives it to those that do', async () => {
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 70, headDim: 16}, 4);
      inputs.value[37 * 16 + 1] = NaN;
      inputs.value[40 * 16 + 2] = Infinity;
      inputs.value[69 * 16 + 3] = -Infinity;
      inputs.key[66 * 16] = NaN;
      const [q, k, v] = tensors(inputs);
      const geometry = blockGeometry(q, k, {blockSize: 70, keyBlockSize: 70, segmentSize: 70});
      const expected = attend(cpuCall(inputs, {geometry, scale: 0.25, causal: true}));
      const got = flashAttention(q, k, v, {precision: 'float16'});
      (await got.data()).forEach((x, i) => {
        if (Number.isNaN(expected[i])) expect(Number.isFinite(x), `value ${i}`).to.equal(false);
        else if (Number.isFinite(expected[i])) expect(x, `value ${i}`).to.be.closeTo(expected[i], 1e-2);
        else expect(x, `value ${i}`).to.equal(expected[i]);
      });
      dispose([q, k, v, got]);
    });

    it('stays finite, whatever queries, keys and values float16 holds', async () => {
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 70, headDim: 16}, 5);
      // Key 5 outweighs all others in rows that see it.
      inputs.key[5 * 16] = 65_504;
      for (let row = 0; row < 2 * 70; ++row) inputs.query[row * 16] = 65_504;
      inputs.value.fill(65_504, 30 * 16);
      const [q, k, v] = tensors(inputs);
      const expected = flashAttention(q, k, v);
      const got = flashAttention(q, k, v, {precision: 'float16'});
      const [exact, values] = [await expected.data(), await got.data()];
      const seen = 5 * 16;
      expect(relativeL1(values.slice(seen, 70 * 16), exact.slice(seen, 70 * 16))).to.be.below(2e-3);
      expect(values.every(Number.isFinite)).to.equal(true);
      dispose([q, k, v, got, expected]);
    });

    it('is attention over the blocks of a plan, under a mask', async () => {
      // Few rows: in blocks that do not fill the larger workgroups there is room.
      matrixTiles.manyRows = manyRows;
      const [q, k, v] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 150, headDim: 8}, 32));
      const sizes = {blockSize: 64, keyBlockSize: 32, segmentSize: 64, threshold: 0.5, auto: false};
      // The sampled estimate has a program of its own on matrix units.
      const rule = {...sizes, estimate: 'pooled' as const};
      const plan = pbsAttentionPlan(q, k, rule);
      const bias = Array.from({length: 150}, (_, i) => (i % 7 === 3 ? -Infinity : 2 * Math.sin(i)));
      const mask = tensor4d(bias, [1, 1, 1, 150]);
      const attend = (precision: 'float32' | 'float16'): Tensor4D =>
        pbsAttention(q, k, v, {...sizes, plan, mask, precision});
      const [expected, got] = [attend('float32'), attend('float16')];
      expect(relativeL1(await got.data(), await expected.data())).to.be.within(1e-5, 5e-3);
      dispose([q, k, v, mask, plan.keyIndices, plan.blockMask, got, expected]);
    });
  });

  describe('attention on each size of matrix units that the adapter lists [webgpu]', () => {
    before(async function () {
      await setBackend('webgpu');
      if (!matrixUnitsOf((activeBackend() as WebGPUBackend).device)) this.skip();
    });

    it('is exact attention to the digits of float16', async () => {
      const {device} = activeBackend() as WebGPUBackend;
      const info = adapterInfoOf(device)!;
      const shapes: RectangularShape[] = [
        {heads: 2, keyValueHeads: 1, length: 300, headDim: 64},
        {heads: 2, keyValueHeads: 1, length: 300, headDim: 80, valueDim: 128},
      ];
      try {
        for (const units of listMatrixUnits(device)) {
          recordAdapterInfo(device, {...listOf(units)} as unknown as GPUAdapterInfo);
          for (const shape of shapes) {
            const [q, k, v] = tensors(randomInputs(shape, 34));
            for (const given of [{}, {scale: 9, sinks: [-1.5, -2.5], softCap: 20}]) {
              const expected = flashAttention(q, k, v, given);
              const got = flashAttention(q, k, v, {...given, precision: 'float16'});
              const error = relativeL1(await got.data(), await expected.data());
              expect(error, JSON.stringify({units, ...shape, ...given})).to.be.within(1e-5, 5e-3);
              dispose([got, expected]);
            }
            dispose([q, k, v]);
          }
        }
      } finally {
        recordAdapterInfo(device, info);
      }
    });
  });
}

/** What an adapter says that has these matrix units. */
const listOf = ({rows: M, columns: N, depth: K, lanes}: MatrixUnits) => ({
  ...{subgroupMinSize: lanes, subgroupMaxSize: lanes},
  subgroupMatrixConfigs: [{componentType: 'f16', resultComponentType: 'f32', M, N, K}],
});

describe('the matrix units of a device', () => {
  const features = new Set(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix']);
  const device = (adapterInfo: object, others: object = {}) =>
    ({features, adapterInfo, ...others}) as unknown as GPUDevice;
  const config = (sizes: [number, number, number], [componentType, resultComponentType] = ['f16', 'f32']) => {
    const [M, N, K] = sizes;
    return {componentType, resultComponentType, M, N, K};
  };
  const listing = (...subgroupMatrixConfigs: object[]) => ({...listOf(UNITS), subgroupMatrixConfigs});

  it('are those of each size that the programs take', () => {
    for (const units of Object.values(MATRIX_UNITS)) {
      expect(matrixUnitsOf(device(listOf(units)))).to.deep.equal(units);
    }
  });

  it('are the largest of several', () => {
    const sizes: Array<[number, number, number]> = [
      [8, 8, 8],
      [16, 8, 8],
      [16, 16, 16],
      [16, 8, 16],
    ];
    expect(matrixUnitsOf(device(listing(...sizes.map((size) => config(size)))))).to.deep.equal(UNITS);
  });

  it('are none where sums are float16, factors are others, or sizes are', () => {
    const none = [
      config([16, 16, 16], ['f16', 'f16']),
      config([8, 8, 8], ['f32', 'f32']),
      config([16, 16, 32], ['i8', 'i32']),
      config([32, 8, 16]),
    ];
    expect(matrixUnitsOf(device(listing(...none)))).to.equal(undefined);
  });

  it('are none where subgroups are of several sizes, of others, or a feature is not there', () => {
    const {subgroupMatrixConfigs} = listOf(UNITS);
    const subgroups = (subgroupMinSize: number, subgroupMaxSize: number) =>
      matrixUnitsOf(device({subgroupMatrixConfigs, subgroupMinSize, subgroupMaxSize}));
    expect(subgroups(32, 32)).to.deep.equal(UNITS);
    expect(subgroups(32, 64)).to.equal(undefined);
    expect(subgroups(16, 16)).to.equal(undefined);
    const fewer = {features: new Set(['shader-f16', 'subgroups'])};
    expect(matrixUnitsOf(device(listOf(UNITS), fewer))).to.equal(undefined);
    expect(matrixUnitsOf(device({}))).to.equal(undefined);
  });
});
