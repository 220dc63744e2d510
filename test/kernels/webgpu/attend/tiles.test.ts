import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../../../src/attention/block_geometry';
import {attend} from '../../../../src/kernels/cpu/attend/attend';
import {AttendProgram} from '../../../../src/kernels/webgpu/attend/attend';
import {chooseAttendTile, firstTiles} from '../../../../src/kernels/webgpu/attend/attend_tile';
import type {WebGPUCall, WebGPUCallShape} from '../../../../src/kernels/webgpu/webgpu_call';
import {relativeL1} from '../../../golden/golden_cases';
import {randomInputs, tensors} from '../../../reference/attention';
import {cpuCall} from '../../../reference/cpu_call';
import {testBackends} from '../../../setup/environment';

describe('tiles of attention in float32', () => {
  const chosen = (heads: number, queryLength: number, headDim: number, memory = 49_152) => {
    const limits = {maxComputeWorkgroupStorageSize: memory, maxComputeInvocationsPerWorkgroup: 256};
    const geometry = {batch: 1, heads, queryLength, headDim, valueDim: headDim};
    return chooseAttendTile(
      {op: 'test', backend: {device: {limits}}, geometry} as unknown as WebGPUCallShape,
      'float32',
    );
  };

  it('are large where there are many workgroups, and rows of 64 values', () => {
    const {large, small, wide} = firstTiles;
    expect(chosen(8, 2048, 64)).to.equal(large);
    expect(chosen(8, 1024, 64)).to.equal(small);
    expect(chosen(8, 2048, 32)).to.equal(small);
    expect(chosen(8, 2048, 64, 32_768)).to.equal(small);
    expect(chosen(8, 2048, 80)).to.equal(wide);
    expect(chosen(8, 2048, 128)).to.equal(wide);
  });

  if (testBackends().includes('webgpu')) {
    // With a head dim that fits the workgroup memory of a software adapter.
    const shape = {heads: 2, keyValueHeads: 1, length: 135, headDim: 32};
    for (const [name, tile] of Object.entries(firstTiles)) {
      it(`is attention with the ${name} one [webgpu]`, async () => {
        await setBackend('webgpu');
        const backend = activeBackend() as WebGPUBackend;
        const inputs = randomInputs(shape, 5);
        const [query, key, value] = tensors(inputs);
        const form = {
          geometry: blockGeometry(query, key, {blockSize: 64, keyBlockSize: 64, segmentSize: 64}),
          scale: 0.3,
          causal: true,
        };
        const call: WebGPUCall = {op: 'test', backend, precision: 'float32', query, key, value, ...form};
        const output = new AttendProgram(call, {tile}).run(backend);
        const actual = (await backend.read(output.dataId)) as Float32Array;
        backend.disposeData(output.dataId);
        expect(relativeL1(actual, attend(cpuCall(inputs, form)))).to.be.below(1e-6);
      });
    }
  }
});
