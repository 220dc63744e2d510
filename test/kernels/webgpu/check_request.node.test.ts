import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {AttentionRequest} from '../../../src/attention/attention_call';
import {blockGeometry} from '../../../src/attention/block_geometry';
import {checkRequest} from '../../../src/kernels/webgpu/check_request';

describe('the size of what a call passes on, on WebGPU', () => {
  const units = {componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16};
  const check = (features: string[], length: number, {headDim = 64, result = 'output'} = {}) => {
    const limits = {
      maxStorageBufferBindingSize: 2 ** 27,
      maxBufferSize: 2 ** 28,
      maxComputeWorkgroupStorageSize: 49_152,
      maxComputeInvocationsPerWorkgroup: 256,
    };
    const adapterInfo = {subgroupMinSize: 32, subgroupMaxSize: 32, subgroupMatrixConfigs: [units]};
    const backend = {device: {features: new Set(features), limits, adapterInfo}} as unknown as WebGPUBackend;
    const info: TensorInfo = {shape: [1, 16, length, headDim], dtype: 'float32', dataId: {}};
    const request = {
      ...{op: 'flashAttention', inputs: {query: info, key: info, value: info}, scale: 1, causal: true},
      geometry: blockGeometry(info, info, {blockSize: 128, keyBlockSize: 64, segmentSize: 256}),
      ...{precision: 'float16', result, expectedTime: 0},
    };
    checkRequest(backend, request as unknown as AttentionRequest);
  };
  const all = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];

  it('counts rows of float16, which hold queries for matrix units alone', () => {
    check(all, 16_384);
    check(['shader-f16'], 32_768);
    expect(() => check(all, 32_768)).to.throw(
      'flashAttention: rows of float16 [50335744] takes 201342976 bytes in one buffer; this WebGPU device takes at most 134217728.',
    );
    expect(() => check(all, 24_576)).to.throw('flashAttention: rows of float16');
    check(all, 24_576, {result: 'logSumExp'});
    // Filled up to 16 values, a head of 8 takes twice its memory.
    expect(() => check(['shader-f16'], 262_144, {headDim: 8})).to.throw(
      'flashAttention: rows of float16 [67108864] takes',
    );
  });
});
