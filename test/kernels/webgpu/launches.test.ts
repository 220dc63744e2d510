import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {permute} from '../../../src/kernels/cpu/permute/permute';
import {scoreBlocks} from '../../../src/kernels/cpu/select/score_blocks';
import {selectBlocks} from '../../../src/kernels/cpu/select/select_blocks';
import {attend} from '../../../src/kernels/webgpu/attend/attend';
import {attendGradients} from '../../../src/kernels/webgpu/gradients/attend_gradients';
import {randomInputs} from '../../reference/attention';
import {cpuCall} from '../../reference/cpu_call';
import {testBackends} from '../../setup/environment';

if (testBackends().includes('webgpu')) {
  describe('attention in several launches [webgpu]', function () {
    this.timeout(300_000);
    const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 150, headDim: 16}, 97);
    const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});

    for (const isSparse of [false, true]) {
      it(`gives the same to the last bit: ${isSparse ? 'over blocks' : 'over all keys'}`, async () => {
        await setBackend('webgpu');
        const gpu = activeBackend() as WebGPUBackend;
        const sizes = isSparse ? {blockSize: 16, segmentSize: 32} : {blockSize: 150, segmentSize: 150};
        const {blockSize: keyBlockSize} = sizes;
        const geometry = blockGeometry(info(inputs.queryShape), info(inputs.keyShape), {...sizes, keyBlockSize});
        const onCPU = cpuCall(inputs, {geometry, scale: 0.3, causal: true});
        const rule = {permute: true, estimate: 'pooled', threshold: 0.4} as const;
        const {keyIndices} = permute(onCPU, rule);
        const lists = selectBlocks(onCPU, rule, scoreBlocks(onCPU, keyIndices), keyIndices);

        const owned: TensorInfo[] = [];
        const own = (tensor: TensorInfo) => (owned.push(tensor), tensor);
        const upload = (values: Float32Array | Int32Array, shape: number[]) =>
          own(gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values));
        const {batch, heads, keyLength, queryBlocks, keyBlocks} = geometry;
        const query = upload(inputs.query, inputs.queryShape);
        const call = {
          ...{op: 'test', precision: 'float32' as const, scale: 0.3, causal: true, geometry, backend: gpu},
          ...{query, output: query, dy: query},
          key: upload(inputs.key, inputs.keyShape),
          value: upload(inputs.value, inputs.valueShape),
        };
        const plan = isSparse
          ? {
              keyIndices: upload(keyIndices, [batch, heads, keyLength]),
              blockLists: upload(lists, [batch, heads, queryBlocks, keyBlocks + 1]),
            }
          : undefined;
        const inLaunches = async (launches: number) => {
          const expectedTime = 50 * launches;
          const tensors = [
            attend({...call, expectedTime}, plan),
            ...attendGradients({...call, expectedTime}, plan),
          ].map(own);
          return Promise.all(tensors.map(async ({dataId}) => Array.from((await gpu.read(dataId)) as Float32Array)));
        };
        const whole = await inLaunches(1);
        expect(Math.max(...whole[0])).to.be.above(0.1);
        // More launches than there are workgroups are one each.
        for (const launches of [2, 5, 30]) {
          const actual = await inLaunches(launches);
          const differing = actual.map((x, i) => x.filter((value, j) => value !== whole[i][j]).length);
          expect(differing, `values that differ in ${launches} launches: output, gradients`).to.deep.equal([
            0, 0, 0, 0,
          ]);
        }
        owned.forEach(({dataId}) => gpu.disposeData(dataId));
      });
    }
  });
}
