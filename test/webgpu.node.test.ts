import {engine, removeBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {registerWebGPUBackend} from '../src/webgpu';

describe('registerWebGPUBackend', () => {
  const original = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  const setNavigator = (value: unknown) =>
    Object.defineProperty(globalThis, 'navigator', {value, configurable: true, writable: true});
  afterEach(() => {
    if (original) {
      Object.defineProperty(globalThis, 'navigator', original);
    } else {
      Reflect.deleteProperty(globalThis, 'navigator');
    }
    if ('webgpu' in engine().registryFactory) {
      removeBackend('webgpu');
    }
  });

  it('rejects where there is no WebGPU, and where there is no adapter', async () => {
    for (const navigator of [undefined, {}, {gpu: {requestAdapter: async () => null}}]) {
      setNavigator(navigator);
      const rejected = await registerWebGPUBackend().catch((error: Error) => error);
      expect(rejected)
        .to.be.an('error')
        .with.property('message')
        .match(/^registerWebGPUBackend: got no WebGPU adapter/);
    }
    expect(engine().registryFactory).not.to.have.property('webgpu');
  });

  it('asks for the useful features that the adapter has, and for its limits; twice if called twice', async () => {
    const asked: GPUDeviceDescriptor[] = [];
    const adapter = {
      features: new Set(['shader-f16', 'subgroups', 'texture-compression-bc']),
      limits: {maxComputeWorkgroupStorageSize: 32768, maxBufferSize: 2 ** 30},
      info: {vendor: 'test'},
      requestDevice: async (descriptor: GPUDeviceDescriptor) => {
        asked.push(descriptor);
        return {};
      },
    };
    setNavigator({gpu: {requestAdapter: async () => adapter}});
    await registerWebGPUBackend();
    await registerWebGPUBackend();
    expect(asked).to.have.length(2);
    expect(asked[1].requiredFeatures).to.deep.equal(['shader-f16', 'subgroups']);
    expect(asked[1].requiredLimits).to.include({maxComputeWorkgroupStorageSize: 32768, maxBufferSize: 2 ** 30});
    expect(engine().registryFactory).to.have.property('webgpu');
  });
});
