import type {Tensor4D, TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, getKernel, setBackend, tensor1d, tensor4d} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {attentionWithLogSumExp, flashAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry} from '../../src/attention/block_geometry';
import {attend} from '../../src/kernels/cpu/attend/attend';
import {AttendProgram} from '../../src/kernels/webgpu/attend/attend';
import {CombineStatesProgram} from '../../src/kernels/webgpu/attend/attend_split';
import {LogSumExpProgram} from '../../src/kernels/webgpu/attend/log_sum_exp';
import {halfArithmetic} from '../../src/kernels/webgpu/attend/attend_products';
import {chooseAttendTile} from '../../src/kernels/webgpu/attend/attend_tile';
import {Float16RowsProgram} from '../../src/kernels/webgpu/attend/float16_rows';
import {matrixUnitsOf} from '../../src/kernels/webgpu/runtime/device_features';
import type {WebGPUCall, WebGPUPlan} from '../../src/kernels/webgpu/webgpu_call';
import {testBackends} from '../setup/environment';
import type {GoldenCase} from '../golden/golden_cases';
import {goldenCases, relativeL1} from '../golden/golden_cases';
import type {Shape} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';

/** The arithmetic of the float16 program for a device without: in float32, rounded to float16 after every step. */
const roundedArithmetic = `
alias half2 = vec2<f32>;
fn halves(x : u32) -> half2 { return unpack2x16float(x); }
fn multiplyAdd(a : half2, b : half2, sum : half2) -> half2 {
  return unpack2x16float(pack2x16float(fma(a, b, sum)));
}`;

class RoundedAttendProgram extends AttendProgram {
  override getUserCode(): string {
    const native = super.getUserCode();
    const rounded = native.replace(halfArithmetic, roundedArithmetic);
    expect(rounded).not.to.equal(native);
    return rounded;
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

const shapes: Array<[string, Shape]> = [
  ['one token', {length: 1, headDim: 16}],
  ['several tiles of keys, the last partial', {heads: 2, keyValueHeads: 1, length: 135, headDim: 32}],
  ['a head dim that is no multiple of 4', {heads: 2, keyValueHeads: 1, length: 45, headDim: 10}],
  ['a head dim that is no multiple of 8', {length: 70, headDim: 12}],
  ['a head dim whose words are no multiple of 4', {length: 50, headDim: 40}],
  ['the largest head dim', {heads: 2, length: 70, headDim: 256}],
];

if (testBackends().includes('webgpu')) {
  describe('float16 without matrix units [webgpu]', () => {
    let cases: GoldenCase[];
    before(async () => {
      await setBackend('webgpu');
      cases = await goldenCases();
    });

    const callOf = (
      query: Tensor4D,
      key: Tensor4D,
      value: Tensor4D,
      form: Pick<WebGPUCall, 'geometry' | 'scale' | 'causal' | 'keyLengths' | 'mask'>,
    ): WebGPUCall => {
      const backend = activeBackend() as WebGPUBackend;
      return {op: 'test', backend, precision: 'float16', query, key, value, ...form};
    };

    async function rounded(call: WebGPUCall, plan?: WebGPUPlan) {
      const {backend, geometry} = call;
      const tile = chooseAttendTile(call, 'float16', geometry.blockSize);
      const rows = new Float16RowsProgram(call, false).run(backend);
      const output = new RoundedAttendProgram(call, {tile, rows, plan}).run(backend);
      const values = (await backend.read(output.dataId)) as Float32Array;
      [rows, output].forEach(({dataId}) => backend.disposeData(dataId));
      return values;
    }

    async function roundedOverBlocks(
      [q, k, v]: [Tensor4D, Tensor4D, Tensor4D],
      {causal, blockSize, plan}: {causal: boolean; blockSize: number; plan?: WebGPUPlan},
    ) {
      const geometry = blockGeometry(q, k, {blockSize, keyBlockSize: blockSize, segmentSize: blockSize});
      return rounded(callOf(q, k, v, {geometry, scale: 1 / Math.sqrt(geometry.headDim), causal}), plan);
    }

    it('takes a chunk, values of another dim, key lengths and a mask', async () => {
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 12, keyLength: 40, headDim: 8, valueDim: 20}, 3);
      const [q, k, v] = tensors(inputs);
      const geometry = blockGeometry(q, k, {blockSize: 12, keyBlockSize: 12, segmentSize: 12}, v);
      const values = Float32Array.from({length: 12 * 40}, (_, i) => (i % 3 === 0 ? -Infinity : (i % 5) - 2));
      const hidden = {keyLengths: Int32Array.from([36]), mask: {values, shape: [1, 1, 12, 40], dtype: 'float32'}};
      const onGPU = {keyLengths: tensor1d([36], 'int32'), mask: tensor4d(values, [1, 1, 12, 40])};
      const attrs = {geometry, scale: 0.3, causal: true};
      const actual = await rounded(callOf(q, k, v, {...attrs, ...onGPU}));
      const expected = attend(cpuCall(inputs, {...attrs, ...hidden}));
      expect(relativeL1(actual, expected)).to.be.within(1e-5, 2e-3);
    });

    // In software a large head dim takes half a minute; a device with float16 runs it below.
    for (const [name, shape] of shapes.filter(([, {headDim}]) => headDim < 256)) {
      const causal = shape.headDim !== 10;
      it(`is attention but for rounding, its arithmetic in float32: ${name}, ${causal ? '' : 'not '}causal`, async () => {
        const [q, k, v] = tensors(randomInputs(shape, 1));
        const exact = await flashAttention(q, k, v, {causal}).data();
        const error = relativeL1(await roundedOverBlocks([q, k, v], {causal, blockSize: shape.length}), exact);
        expect(error).to.be.below(2e-3);
        expect(error, 'something was rounded').to.be.above(1e-5);
      });
    }

    it('keeps what is not finite in float16 from rows that do not see it, and for those that do', async () => {
      const inputs = randomInputs({length: 30, headDim: 16}, 1);
      const expected = await roundedOverBlocks(tensors(inputs), {causal: true, blockSize: 30});
      const planted = inputs.value.slice();
      planted[12 * 16] = Infinity;
      planted[20 * 16 + 1] = NaN;
      const actual = await roundedOverBlocks(tensors({...inputs, value: planted}), {causal: true, blockSize: 30});
      const isPlanted = (i: number) => (i % 16 === 0 && i >= 12 * 16) || (i % 16 === 1 && i >= 20 * 16);
      actual.forEach((x, i) => {
        if (isPlanted(i)) expect(Number.isFinite(x), `value ${i}`).to.equal(false);
        else expect(x, `value ${i}`).to.be.closeTo(expected[i], 2e-3);
      });
    });

    it('takes what float16 does not reach for its largest number', async () => {
      const inputs = randomInputs({length: 30, headDim: 16}, 1);
      const run = (x: number) => {
        const value = inputs.value.slice();
        value[12 * 16] = x;
        return roundedOverBlocks(tensors({...inputs, value}), {causal: true, blockSize: 30});
      };
      const [beyond, largest] = [await run(-1e30), await run(-65504)];
      expect(Array.from(beyond)).to.deep.equal(Array.from(largest));
      expect(largest[29 * 16]).to.be.below(-100);
    });

    it('stays in the range of float16, whatever queries and keys in it', async () => {
      // Products with key 5 would be up to 4e9 and outweigh all others; queries from row 20 on are zero.
      const headDim = 16;
      for (const largest of [300, 3000, 65_504]) {
        const inputs = randomInputs({length: 40, headDim}, 7);
        inputs.key[5 * headDim] = largest;
        for (let row = 0; row < 40; ++row) {
          if (row < 20) inputs.query[row * headDim] = largest;
          else inputs.query.fill(0, row * headDim, (row + 1) * headDim);
        }
        const actual = await roundedOverBlocks(tensors(inputs), {causal: true, blockSize: 40});
        const exact = await flashAttention(...tensors(inputs), {causal: true}).data();
        expect(relativeL1(actual.slice(5 * headDim), exact.slice(5 * headDim)), `${largest}`).to.be.below(2e-3);
      }
    });

    it('stays in the range of float16, whatever values in it', async () => {
      const inputs = randomInputs({length: 70, headDim: 16}, 8);
      // All weights are alike.
      inputs.query.fill(0);
      inputs.value.fill(65_504);
      const actual = await roundedOverBlocks(tensors(inputs), {causal: true, blockSize: 70});
      actual.forEach((x, i) => expect(x, `value ${i}`).to.be.closeTo(65_504, 65_504 * 2e-3));
    });

    it('keeps the digits of small queries', async () => {
      const inputs = randomInputs({length: 40, headDim: 16}, 9);
      inputs.query.forEach((x, i) => (inputs.query[i] = x * 1e-6));
      inputs.key.forEach((x, i) => (inputs.key[i] = x * 1e4));
      const actual = await roundedOverBlocks(tensors(inputs), {causal: true, blockSize: 40});
      const exact = await flashAttention(...tensors(inputs), {causal: true}).data();
      expect(relativeL1(actual, exact)).to.be.within(1e-5, 2e-3);
    });

    it('hands on the states of its rows, for the logarithms of their sums', async () => {
      const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 70, headDim: 16}, 10);
      const [q, k, v] = tensors(inputs);
      const geometry = blockGeometry(q, k, {blockSize: 70, keyBlockSize: 70, segmentSize: 70});
      const call = callOf(q, k, v, {geometry, scale: 0.25, causal: true});
      const {backend} = call;
      const rows = new Float16RowsProgram(call, false).run(backend);
      const tile = chooseAttendTile(call, 'float16');
      const states = new RoundedAttendProgram(call, {tile, rows, chunks: 1}).run(backend);
      const made = [
        new CombineStatesProgram(states, geometry).run(backend),
        new LogSumExpProgram(states, geometry).run(backend),
      ];
      const [output, logSums] = await Promise.all(
        made.map(({dataId}) => backend.read(dataId) as Promise<Float32Array>),
      );
      [rows, states, ...made].forEach(({dataId}) => backend.disposeData(dataId));
      const exact = attentionWithLogSumExp(q, k, v, {scale: 0.25});
      const [expected, expectedSums] = [await exact.output.data(), await exact.logSumExp.data()];
      expect(relativeL1(output, expected)).to.be.within(1e-5, 2e-3);
      expect(relativeL1(logSums, expectedSums)).to.be.within(1e-7, 2e-3);
    });

    it('attends to the blocks of a plan, its arithmetic in float32', async () => {
      const {query, key, value, options, output} = cases[4];
      const [q, k, v] = [query(), key(), value()];
      const {keyIndices, blockMask} = pbsAttentionPlan(q, k, options);
      const [batch, heads, blocks] = blockMask.shape;
      const mask = await blockMask.data();
      const lists = new Int32Array(batch * heads * blocks * (blocks + 1));
      for (let row = 0; row < batch * heads * blocks; ++row) {
        const kept = Array.from({length: blocks}, (_, i) => i).filter((i) => mask[row * blocks + i]);
        lists.set([kept.length, ...kept], row * (blocks + 1));
      }
      const gpu = activeBackend() as WebGPUBackend;
      const blockLists = gpu.makeTensorInfo([batch, heads, blocks, blocks + 1], 'int32', lists);
      const {blockSize} = options;
      const actual = await roundedOverBlocks([q, k, v], {causal: true, blockSize, plan: {keyIndices, blockLists}});
      gpu.disposeData(blockLists.dataId);
      expect(relativeL1(actual, output)).to.be.below(2e-3);
    });

    describe('on a device that has it', () => {
      let gpu: WebGPUBackend | undefined;
      const errors: string[] = [];
      before(async function () {
        const adapter = (await navigator.gpu.requestAdapter())!;
        if (!adapter.features.has('shader-f16')) {
          this.skip();
        }
        // Not the feature of the matrix units, whatever the adapter has.
        const device = await adapter.requestDevice({requiredFeatures: ['shader-f16']});
        device.addEventListener('uncapturederror', ({error}) => errors.push(error.message));
        gpu = new WebGPUBackend(device, adapter.info);
      });
      after(() => gpu?.device.destroy());

      async function run(kernel: string, inputs: ReturnType<typeof randomInputs>, attrs: object) {
        const info = (values: Float32Array, shape: number[]) => gpu!.makeTensorInfo(shape, 'float32', values);
        const query = info(inputs.query, inputs.queryShape);
        const key = info(inputs.key, inputs.keyShape);
        const value = info(inputs.value, inputs.valueShape);
        const {kernelFunc} = getKernel(kernel, 'webgpu');
        const output = kernelFunc({inputs: {query, key, value}, backend: gpu!, attrs: attrs as never}) as TensorInfo;
        return {query, key, output: (await gpu!.read(output.dataId)) as Float32Array};
      }

      for (const [name, shape] of shapes) {
        it(`is attention but for rounding: ${name}`, async () => {
          expect(matrixUnitsOf(gpu!.device)).to.equal(undefined);
          const scale = 1 / Math.sqrt(shape.headDim);
          for (const causal of [true, false]) {
            const inputs = randomInputs(shape, 1);
            const {query, key, output} = await run('FlashAttention', inputs, {scale, causal, precision: 'float16'});
            const length = shape.length;
            const geometry = blockGeometry(query, key, {blockSize: length, keyBlockSize: length, segmentSize: length});
            const exact = attend(cpuCall(inputs, {geometry, scale, causal}));
            expect(relativeL1(output, exact)).to.be.within(1e-5, 2e-3);
          }
          expect(errors).to.deep.equal([]);
        });
      }

      for (const index of [5, 6]) {
        it(`case ${index}, captured from a model`, async () => {
          const {query, key, value, options, output} = cases[index];
          const [q, k, v] = [query(), key(), value()];
          const inputs = {
            query: (await q.data()) as Float32Array,
            key: (await k.data()) as Float32Array,
            value: (await v.data()) as Float32Array,
            queryShape: q.shape,
            keyShape: k.shape,
            valueShape: v.shape,
          };
          const scale = 1 / Math.sqrt(q.shape[3]);
          const attrs = {...options, scale, causal: true, permute: true, auto: false, precision: 'float16'};
          const {output: ours} = await run('PBSAttention', inputs, attrs);
          expect(relativeL1(ours, output)).to.be.within(1e-5, 2e-3);
          expect(errors).to.deep.equal([]);
        });
      }
    });
  });
}
