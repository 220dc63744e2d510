import {setBackend} from '@tensorflow/tfjs-core';
import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {blockGeometry} from '../../src/attention/block_geometry';
import {attentionPrecision} from '../../src/index';
import {arithmeticOfCall} from '../../src/kernels/webgpu/attend/attend';
import {describeBackends} from '../setup/environment';

describeBackends('attentionPrecision', (backend) => {
  before(() => setBackend(backend));
  const shape = {heads: 8, queryLength: 4096, headDim: 64};

  it('is float32 unless float16 is asked for, and on other backends than WebGPU always', () => {
    expect(attentionPrecision(shape)).to.equal('float32');
    const asked = attentionPrecision({...shape, options: {precision: 'float16'}});
    expect(asked).to.be.oneOf(backend === 'webgpu' ? ['float32', 'float16', 'matrix units'] : ['float32']);
  });

  it('refuses what is no shape, and what a call would refuse', () => {
    expect(() => attentionPrecision({heads: 8, headDim: 64} as never)).to.throw(
      'attentionPrecision: shape.queryLength: got undefined; takes a positive integer.',
    );
    expect(() => attentionPrecision([shape] as never)).to.throw("attentionPrecision: shape: got '0'; takes batch,");
    expect(() => attentionPrecision({...shape, options: {precision: 'float8' as never}})).to.throw(
      /^attentionPrecision: precision: got 'float8'/,
    );
  });
});

describe('what a call multiplies with on WebGPU', () => {
  const units = {componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16};
  const backendWith = (features: string[], memory: number) => {
    const limits = {maxComputeWorkgroupStorageSize: memory, maxComputeInvocationsPerWorkgroup: 256};
    const adapterInfo = {subgroupMinSize: 32, subgroupMaxSize: 32, subgroupMatrixConfigs: [units]};
    return {device: {features: new Set(features), limits, adapterInfo}} as unknown as WebGPUBackend;
  };
  const all = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];
  const of = (
    features: string[],
    [queryLength, keyLength]: [number, number],
    {precision = 'float16' as 'float16' | 'float32', isSparse = false, headDim = 64, memory = 32_768} = {},
  ) => {
    const info = (length: number): TensorInfo => ({shape: [1, 8, length, headDim], dtype: 'float32', dataId: {}});
    const geometry = blockGeometry(info(queryLength), info(keyLength), {
      ...{blockSize: 128, keyBlockSize: 64, segmentSize: 256},
    });
    return arithmeticOfCall(
      {op: 'test', backend: backendWith(features, memory), geometry, causal: true, precision},
      isSparse,
    );
  };

  it('is what the device has, for a prompt', () => {
    expect(of(all, [4096, 4096])).to.equal('matrix units');
    expect(of(all, [4096, 4096], {isSparse: true})).to.equal('matrix units');
    expect(of(all, [4096, 4096], {precision: 'float32'})).to.equal('float32');
    expect(of(['shader-f16'], [4096, 4096])).to.equal('float16');
    expect(of([], [4096, 4096])).to.equal('float32');
  });

  it('is float32 for few rows, over whose many keys work is split', () => {
    expect(of(all, [1, 4096])).to.equal('float32');
    expect(of(all, [8, 4096])).to.equal('float32');
    expect(of(['shader-f16'], [1, 4096])).to.equal('float32');
    expect(of(['shader-f16'], [8, 4096])).to.equal('float32');
    // Few keys are not split.
    expect(of(all, [1, 100])).to.equal('matrix units');
  });

  it('is float16 where head dims leave the matrix units no memory', () => {
    expect(of(all, [4096, 4096], {headDim: 128, memory: 16_384})).to.equal('float16');
  });
});
