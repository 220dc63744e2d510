import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../src/attention/block_geometry';
import {attend} from '../../src/kernels/cpu/attend/attend';
import {attendGradients as attendGradientsOnCPU} from '../../src/kernels/cpu/gradients/attend_gradients';
import {permute} from '../../src/kernels/cpu/permute/permute';
import {scoreBlocks} from '../../src/kernels/cpu/select/score_blocks';
import {selectBlocks} from '../../src/kernels/cpu/select/select_blocks';
import {attendGradients} from '../../src/kernels/webgpu/gradients/attend_gradients';
import {testBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';

if (testBackends().includes('webgpu')) {
  describe('stages of the gradients over a chunk of queries, values of another head dim [webgpu]', () => {
    const [batch, heads, keyValueHeads, queryLength, keyLength, headDim, valueDim] = [2, 4, 2, 21, 45, 34, 6];
    const values = (seed: number, heads: number, length: number, headDim: number) =>
      randomInputs({batch, heads, length, headDim}, seed).key;
    const query = values(81, heads, queryLength, headDim);
    const key = values(82, keyValueHeads, keyLength, headDim);
    const value = values(83, keyValueHeads, keyLength, valueDim);
    const dy = values(84, heads, queryLength, valueDim);
    const shapes = {
      query: [batch, heads, queryLength, headDim],
      key: [batch, keyValueHeads, keyLength, headDim],
      value: [batch, keyValueHeads, keyLength, valueDim],
      output: [batch, heads, queryLength, valueDim],
    };
    const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});

    for (const isSparse of [false, true]) {
      it(isSparse ? 'over blocks' : 'over all keys', async () => {
        await setBackend('webgpu');
        const gpu = activeBackend() as WebGPUBackend;
        const sizes = isSparse
          ? {blockSize: 8, keyBlockSize: 4, segmentSize: 16}
          : {blockSize: keyLength, keyBlockSize: keyLength, segmentSize: keyLength};
        const geometry = blockGeometry(info(shapes.query), info(shapes.key), sizes, info(shapes.value));
        const [scale, causal] = [0.2, true];
        const rule = {estimate: 'pooled', permute: true, threshold: 0.4} as const;
        const call = cpuCall({query, key, value}, {geometry, scale, causal});
        const {keyIndices} = permute(call, rule);
        const scores = scoreBlocks(call, keyIndices);
        const plan = isSparse ? {keyIndices, blockLists: selectBlocks(call, rule, scores, keyIndices)} : undefined;
        const output = attend(call, plan);
        const expected = attendGradientsOnCPU({...call, output, dy}, plan);

        const owned: TensorInfo[] = [];
        const own = (x: TensorInfo) => (owned.push(x), x);
        const upload = (x: Float32Array | Int32Array, shape: number[]) =>
          own(gpu.makeTensorInfo(shape, x instanceof Int32Array ? 'int32' : 'float32', x));
        const inputs = {
          query: upload(query, shapes.query),
          key: upload(key, shapes.key),
          value: upload(value, shapes.value),
          output: upload(output, shapes.output),
          dy: upload(dy, shapes.output),
        };
        const {queryBlocks, keyBlocks} = geometry;
        const gpuPlan = plan && {
          keyIndices: upload(plan.keyIndices, [batch, heads, keyLength]),
          blockLists: upload(plan.blockLists, [batch, heads, queryBlocks, keyBlocks + 1]),
        };
        const gpuCall = {
          ...call,
          ...inputs,
          keyLengths: undefined,
          mask: undefined,
          alibiSlopes: undefined,
          sinks: undefined,
          backend: gpu,
        };
        const gradients = attendGradients(gpuCall, gpuPlan).map(own);
        for (const [i, name] of ['query', 'key', 'value'].entries()) {
          const actual = (await gpu.read(gradients[i].dataId)) as Float32Array;
          expect(relativeL1(actual, expected[i]), `gradient of ${name}`).to.be.below(2e-5);
        }
        owned.forEach(({dataId}) => gpu.disposeData(dataId));
      });
    }
  });
}
