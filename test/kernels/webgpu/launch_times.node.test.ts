import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {FlashAttention, FlashAttentionGrad, PBSAttention} from '../../../src/attention/attention_kernels';
import {blockGeometry} from '../../../src/attention/block_geometry';
import type {AttentionCosts} from '../../../src/attention/cost_model';
import {exactTime, planTimes, sparseTime} from '../../../src/attention/cost_model';
import {attentionKernels} from '../../../src/attention/driver';
import {webgpuStages} from '../../../src/kernels/webgpu/index';
import type {CompleteSpec} from '../../../src/kernels/webgpu/runtime/program_spec';

/** Time of work that is spread over launches as a program says: what of it lies before a workgroup. */
function timeBefore(workgroup: number, {workgroups, work}: CompleteSpec<object>): number {
  const {time, lightest} = work!;
  const part = workgroup / workgroups;
  return (time * (part - ((1 - lightest) * part ** 2) / 2)) / ((1 + lightest) / 2);
}

/** A backend that notes what is launched, and how long each submit takes where its programs take what they say. */
class TimedBackend {
  readonly submits: number[] = [];
  readonly times: Record<string, number> = {};
  launches = 0;
  private recorded = 0;
  readonly device = {
    limits: {
      maxComputeWorkgroupStorageSize: 49_152,
      maxComputeInvocationsPerWorkgroup: 1024,
      maxStorageBufferBindingSize: 2 ** 32,
      maxBufferSize: 2 ** 32,
    },
    features: new Set(),
    adapterInfo: {},
    lost: new Promise(() => {}),
    pushErrorScope: () => {},
    popErrorScope: () => Promise.resolve(null),
  };
  readonly bufferManager = {releaseBuffer: () => {}};
  readonly tensorMap = {get: () => ({dtype: 'float32'})};
  readonly read = () => {};
  readonly readSync = () => {};
  readonly uploadToGPU = () => {};
  readonly disposeData = () => {};
  readonly endComputePassEncoder = () => {};
  readonly makeTensorInfo = (shape: number[], dtype: 'float32'): TensorInfo => ({shape, dtype, dataId: {}});
  submitQueue = () => {
    this.submits.push(this.recorded);
    this.recorded = 0;
  };
  readonly runWebGPUProgram = ({spec, dispatch}: {spec: CompleteSpec<object>; dispatch: number[]}) => {
    ++this.launches;
    if (!spec.work) return;
    const first = spec.uniforms.firstWorkgroup?.value ?? 0;
    const time = timeBefore(first + dispatch[0], spec) - timeBefore(first, spec);
    this.recorded += time;
    this.times[spec.name] = (this.times[spec.name] ?? 0) + time;
  };
}

/** What a device so many times slower than the one of the costs takes. */
function slower(costs: AttentionCosts, times: number): AttentionCosts {
  const {multiplyAdds, proxyMultiplyAdd, sampleMultiplyAdd, pooledValue, blockPairValue, blockTriple} = costs;
  return {
    ...costs,
    multiplyAdds: multiplyAdds / times,
    proxyMultiplyAdd: times * proxyMultiplyAdd,
    sampleMultiplyAdd: times * sampleMultiplyAdd,
    pooledValue: times * pooledValue,
    blockPairValue: times * blockPairValue,
    blockTriple: times * blockTriple,
  };
}

describe('times of launches', () => {
  const calls = {
    exact: {kernel: FlashAttention, rule: {}},
    'gradients of exact': {kernel: FlashAttentionGrad, rule: {}},
    sampled: {kernel: PBSAttention, rule: {estimate: 'sampled', permute: true, blockSize: 128, keyBlockSize: 64}},
    pooled: {kernel: PBSAttention, rule: {estimate: 'pooled', permute: true, blockSize: 128, keyBlockSize: 128}},
  } as const;

  function run(name: keyof typeof calls, length: number, times: number) {
    const {kernel, rule} = calls[name];
    const backend = new TimedBackend();
    const slow: typeof webgpuStages.costs = (...given) => slower(webgpuStages.costs(...given), times);
    const {kernelFunc} = attentionKernels({...webgpuStages, costs: slow}).find((x) => x.kernelName === kernel)!;
    const [query, key] = [14, 2].map((heads) => backend.makeTensorInfo([1, heads, length, 64], 'float32'));
    const attrs = {
      ...{scale: 0.125, causal: true, precision: 'float32', queryOffset: 0},
      ...{threshold: 0.9, segmentSize: 256, auto: false, blockSize: length, keyBlockSize: length},
      ...rule,
    } as const;
    const inputs = {query, key, value: key, output: query, dy: query};
    kernelFunc({inputs, attrs, backend: backend as unknown as WebGPUBackend} as never);
    const submitted = backend.submits.length;
    backend.submitQueue();
    const geometry = blockGeometry(query, key, attrs, key);
    const costs = slow(backend as unknown as WebGPUBackend, geometry, 'float32');
    return {backend, submitted, geometry, costs};
  }

  for (const name of ['exact', 'gradients of exact', 'sampled', 'pooled'] as const) {
    it(`${name}: no submit holds a device 50 times slower than an H100 for more than 50 ms`, () => {
      for (const length of [1024, 5000, 16_384, 40_000]) {
        const {backend, geometry, costs} = run(name, length, 50);
        expect(Math.max(...backend.submits), `${length} tokens`).to.be.at.most(50 + 1e-9);
        // Nothing that takes long is left out of that.
        const {times} = backend;
        const total = Object.values(times).reduce((a, b) => a + b, 0);
        if (name === 'sampled' || name === 'pooled') {
          const {causal, ...rule} = {causal: true, threshold: 0.9, ...calls[name].rule};
          const {order, pool, score, select} = planTimes(geometry, {causal, ...rule}, costs);
          const attend = sparseTime(geometry, {causal, ...rule}, costs);
          expect(times.Attend).to.be.closeTo(attend, attend / 1000);
          expect(total - attend).to.be.at.least(0.999 * (order + pool + score + select));
        } else {
          expect(total).to.be.at.least(0.999 * exactTime(geometry, true, costs));
        }
      }
    });

    it(`${name}: is one launch a program, and no submit of ours, where that does`, () => {
      const whole = run(name, 512, 1);
      for (const length of [512, 1024, 2048, 4096]) {
        const {backend, submitted} = run(name, length, 1);
        expect(backend.launches, `launches of ${length} tokens`).to.equal(whole.backend.launches);
        expect(submitted).to.equal(0);
      }
    });
  }
});
