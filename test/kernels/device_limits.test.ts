import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, getKernel, setBackend, tensor4d} from '@tensorflow/tfjs-core';
import {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention} from '../../src/index';
import {attend} from '../../src/kernels/cpu/attend/attend';
import {attendGradients} from '../../src/kernels/cpu/gradients/attend_gradients';
import {blockGeometry} from '../../src/attention/block_geometry';
import {SortKeysProgram} from '../../src/kernels/webgpu/permute/sort_keys';
import {testBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';

if (testBackends().includes('webgpu')) {
  describe('device limits [webgpu]', () => {
    before(() => setBackend('webgpu'));

    describe('a device with the limits that every device has', () => {
      let gpu: WebGPUBackend;
      const errors: string[] = [];
      before(async () => {
        const adapter = (await navigator.gpu.requestAdapter())!;
        const device = await adapter.requestDevice();
        device.addEventListener('uncapturederror', ({error}) => errors.push(error.message));
        gpu = new WebGPUBackend(device, adapter.info);
      });
      after(() => {
        gpu.device.destroy();
      });

      async function run(kernel: string, headDim: number, attrs: object) {
        const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 75, headDim}, 41);
        const info = (values: Float32Array, shape: number[]) => gpu.makeTensorInfo(shape, 'float32', values);
        const query = info(inputs.query, inputs.queryShape);
        const key = info(inputs.key, inputs.keyShape);
        const value = info(inputs.value, inputs.valueShape);
        const {kernelFunc} = getKernel(kernel, 'webgpu');
        const output = kernelFunc({inputs: {query, key, value}, backend: gpu, attrs: attrs as never}) as TensorInfo;
        const actual = (await gpu.read(output.dataId)) as Float32Array;
        const geometry = blockGeometry(query, key, {blockSize: 75, keyBlockSize: 75, segmentSize: 75});
        const expected = attend(cpuCall(inputs, {geometry, scale: 0.25, causal: true}));
        return {actual, expected};
      }

      for (const headDim of [64, 128, 256]) {
        it(`runs exact attention with head dim ${headDim} in 16 KiB of workgroup memory`, async () => {
          expect(gpu.device.limits.maxComputeWorkgroupStorageSize).to.equal(16384);
          const {actual, expected} = await run('FlashAttention', headDim, {scale: 0.25, causal: true});
          expect(relativeL1(actual, expected)).to.be.below(1e-4);
          expect(errors).to.deep.equal([]);
        });
      }

      // 40 and 64 fit as whole heads, 128 in chunks of 8 vec4.
      for (const headDim of [40, 64, 128]) {
        it(`runs the gradients with head dim ${headDim}`, async () => {
          const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 75, headDim}, 45);
          const {query, key, value, queryShape, keyShape} = inputs;
          const info = (values: Float32Array, shape: number[]) => gpu.makeTensorInfo(shape, 'float32', values);
          const attrs = {scale: 0.1, causal: true, queryOffset: 0, precision: 'float32'};
          const geometry = blockGeometry(info(query, queryShape), info(key, keyShape), {
            blockSize: 75,
            keyBlockSize: 75,
            segmentSize: 75,
          });
          const call = cpuCall(inputs, {geometry, scale: attrs.scale, causal: attrs.causal});
          const output = attend(call);
          const dy = randomInputs({heads: 2, keyValueHeads: 1, length: 75, headDim}, 46).query;
          const gradients = getKernel('FlashAttentionGrad', 'webgpu').kernelFunc({
            inputs: {
              query: info(query, queryShape),
              key: info(key, keyShape),
              value: info(value, keyShape),
              output: info(output, queryShape),
              dy: info(dy, queryShape),
            },
            backend: gpu,
            attrs: attrs as never,
          }) as TensorInfo[];
          const expected = attendGradients({...call, output, dy});
          for (const [i, gradient] of gradients.entries()) {
            const actual = (await gpu.read(gradient.dataId)) as Float32Array;
            expect(relativeL1(actual, expected[i]), ['query', 'key', 'value'][i]).to.be.below(1e-4);
          }
          expect(errors).to.deep.equal([]);
        });
      }

      for (const estimate of ['sampled', 'pooled']) {
        it(`runs all stages, ${estimate}`, async () => {
          const attrs = {
            scale: 0.25,
            causal: true,
            blockSize: 16,
            keyBlockSize: 8,
            segmentSize: 32,
            // Keeps every block, by the scores and not by the short cut of threshold 1.
            threshold: 0.9999999,
            permute: true,
            estimate,
            auto: false,
          };
          const {actual, expected} = await run('PBSAttention', 64, attrs);
          expect(relativeL1(actual, expected)).to.be.below(1e-4);
          expect(errors).to.deep.equal([]);
        });
      }

      // 8 storage buffers a shader stage: attention by a plan with key lengths takes 7.
      it('runs attention with key lengths and a value dim, its keys split', async () => {
        expect(gpu.device.limits.maxStorageBuffersPerShaderStage).to.be.at.least(8);
        const shape = {batch: 2, heads: 2, keyValueHeads: 1, length: 20, keyLength: 600};
        const inputs = randomInputs({...shape, headDim: 32, valueDim: 48}, 43);
        const info = (values: Float32Array | Int32Array, shape: number[]) =>
          gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values);
        const query = info(inputs.query, inputs.queryShape);
        const key = info(inputs.key, inputs.keyShape);
        const value = info(inputs.value, inputs.valueShape);
        const lengths = Int32Array.from([600, 550]);
        const attrs = {
          scale: 0.25,
          causal: true,
          queryOffset: 540,
          blockSize: 16,
          keyBlockSize: 16,
          segmentSize: 32,
          threshold: 0.9999999,
          permute: true,
          estimate: 'sampled' as const,
          auto: false,
        };
        const {kernelFunc} = getKernel('PBSAttention', 'webgpu');
        const keyLengths = info(lengths, [2]);
        const output = kernelFunc({inputs: {query, key, value, keyLengths}, backend: gpu, attrs}) as TensorInfo;
        const actual = (await gpu.read(output.dataId)) as Float32Array;
        const geometry = blockGeometry(query, key, attrs, value);
        const expected = attend(cpuCall(inputs, {geometry, scale: 0.25, causal: true, keyLengths: lengths}));
        expect(relativeL1(actual, expected)).to.be.below(1e-4);
        expect(errors).to.deep.equal([]);
      });

      it('refuses a value dim that its workgroup memory cannot hold', () => {
        const query = gpu.makeTensorInfo([1, 1, 4, 16], 'float32');
        const value = gpu.makeTensorInfo([1, 1, 4, 512], 'float32');
        const {kernelFunc} = getKernel('FlashAttention', 'webgpu');
        const before = gpu.numDataIds();
        const attrs = {scale: 1, causal: true};
        expect(() => kernelFunc({inputs: {query, key: query, value}, backend: gpu, attrs})).to.throw(
          /flashAttention: value: got valueDim 512, which needs \d+ bytes of workgroup memory; this device has 16384/,
        );
        expect(gpu.numDataIds()).to.equal(before);
      });

      it('refuses a head dim that its workgroup memory cannot hold', () => {
        const shape = [1, 1, 4, 512];
        const query = gpu.makeTensorInfo(shape, 'float32');
        const {kernelFunc} = getKernel('FlashAttention', 'webgpu');
        const before = gpu.numDataIds();
        const inputs = {query, key: query, value: query};
        expect(() => kernelFunc({inputs, backend: gpu, attrs: {scale: 1, causal: true}})).to.throw(
          /flashAttention: query: got headDim 512, which needs \d+ bytes of workgroup memory; this device has 16384/,
        );
        expect(gpu.numDataIds()).to.equal(before);
      });

      it('refuses a tensor that one binding cannot hold, before anything is launched', () => {
        // 128 MiB is the limit; these are 2 GiB, of which nothing is allocated.
        const query = gpu.makeTensorInfo([1, 8, 2 ** 20, 64], 'float32');
        const before = gpu.numDataIds();
        const message =
          /pbsAttention: query \[1,8,1048576,64\] takes 2147483648 bytes in one buffer; this WebGPU device takes at most 134217728/;
        const attrs = {
          scale: 1,
          causal: true,
          blockSize: 128,
          keyBlockSize: 64,
          segmentSize: 256,
          threshold: 0.9,
          permute: true,
          estimate: 'sampled',
          auto: false,
        };
        const {kernelFunc} = getKernel('PBSAttention', 'webgpu');
        const inputs = {query, key: query, value: query};
        expect(() => kernelFunc({inputs, backend: gpu, attrs})).to.throw(message);
        // Small inputs whose block lists would be too large: 2¹⁴ blocks of 4 rows.
        const narrow = gpu.makeTensorInfo([1, 1, 2 ** 16, 4], 'float32');
        const small = {inputs: {query: narrow, key: narrow, value: narrow}, backend: gpu};
        expect(() => kernelFunc({...small, attrs: {...attrs, blockSize: 4, keyBlockSize: 4, segmentSize: 4}})).to.throw(
          /pbsAttention: block lists \[1,1,16384,16385\] takes 1073807360 bytes/,
        );
        // What is sampled is eight times as large as the scores.
        const heads = gpu.makeTensorInfo([1, 8, 16384, 4], 'float32');
        const wide = {inputs: {query: heads, key: heads, value: heads}, backend: gpu};
        expect(() =>
          kernelFunc({...wide, attrs: {...attrs, blockSize: 16, keyBlockSize: 16, queryOffset: 0}}),
        ).to.throw(/pbsAttention: sampled mass \[8192,4,2,1024\] takes 268435456 bytes/);
        // Blocks of one row have as many means as there are rows, of queries and of keys.
        const tall = gpu.makeTensorInfo([1, 257, 256, 256], 'float32');
        const rows = {inputs: {query: tall, key: tall, value: tall}, backend: gpu};
        const pooled = {...attrs, estimate: 'pooled', segmentSize: 128, queryOffset: 0};
        expect(() => kernelFunc({...rows, attrs: {...pooled, blockSize: 1, keyBlockSize: 1}})).to.throw(
          /pbsAttention: block means \[131584,256\] takes 134742016 bytes/,
        );
        // Statistics of so many proxy rows and chunks of keys.
        const many = gpu.makeTensorInfo([1, 64, 32768, 4], 'float32');
        const large = {inputs: {query: many, key: many, value: many}, backend: gpu};
        expect(() =>
          kernelFunc({...large, attrs: {...pooled, blockSize: 16384, keyBlockSize: 16384, segmentSize: 16384}}),
        ).to.throw(/pbsAttention: proxy statistics \[64,64,16384,2\] takes 536870912 bytes/);
        // Four numbers a row are more than a row of one value.
        const long = gpu.makeTensorInfo([1, 1, 2 ** 23 + 1, 1], 'float32');
        const {kernelFunc: gradients} = getKernel('FlashAttentionGrad', 'webgpu');
        const all = {query: long, key: long, value: long, output: long, dy: long};
        expect(() => gradients({inputs: all, backend: gpu, attrs: {scale: 1, causal: true, queryOffset: 0}})).to.throw(
          /gradient of flashAttention: gradient statistics \[1,1,8388609,4\] takes 134217744 bytes/,
        );
        expect(gpu.numDataIds()).to.equal(before + 5);
        expect(errors).to.deep.equal([]);
      });

      it('makes a plan of exact attention where the sampled estimate would not fit', () => {
        const query = gpu.makeTensorInfo([1, 24, 16384, 64], 'float32');
        const {kernelFunc} = getKernel('PBSAttentionPlan', 'webgpu');
        const attrs = {
          scale: 1,
          causal: true,
          queryOffset: 0,
          blockSize: 32,
          keyBlockSize: 32,
          segmentSize: 64,
          threshold: 1,
          permute: true,
          estimate: 'sampled',
        };
        const plan = (threshold: number) =>
          kernelFunc({inputs: {query, key: query}, backend: gpu, attrs: {...attrs, threshold}}) as TensorInfo[];
        expect(() => plan(0.9)).to.throw(/pbsAttentionPlan: sampled mass \[12288,4,2,512\] takes/);
        const exact = plan(1);
        expect(exact.map(({shape}) => shape)).to.deep.equal([
          [1, 24, 16384],
          [1, 24, 512, 512],
        ]);
        exact.forEach(({dataId}) => gpu.disposeData(dataId));
      });
    });

    it('runs more than 65,535 workgroups', async () => {
      const heads = 70_000;
      // One token sees itself alone: the output is the value.
      const values = Float32Array.from({length: heads * 4}, (_, i) => i % 1013);
      const x = tensor4d(values, [1, heads, 1, 4]);
      expect(Array.from(await flashAttention(x, x, x).data())).to.deep.equal(Array.from(values));
    });

    it('runs more than 65,535 workgroups in a stage with barriers and an index of its own', async () => {
      const gpu = activeBackend() as WebGPUBackend;
      const heads = 35_000;
      const info = gpu.makeTensorInfo([1, heads, 2, 4], 'float32');
      const geometry = blockGeometry(info, info, {blockSize: 1, keyBlockSize: 1, segmentSize: 1});
      const keyScores = gpu.makeTensorInfo([1, heads, 2], 'float32', new Float32Array(2 * heads).fill(0.5));
      const order = new SortKeysProgram(keyScores, geometry).run(gpu);
      const values = (await gpu.read(order.dataId)) as Int32Array;
      expect(values.every((key, i) => key === i % 2)).to.equal(true);
      [info, keyScores, order].forEach(({dataId}) => gpu.disposeData(dataId));
    });
  });
}
