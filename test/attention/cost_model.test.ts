import type {TensorInfo} from '@tensorflow/tfjs-core';
import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import fc from 'fast-check';
import {flashAttention, paperOptions, pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import type {BlockGeometry} from '../../src/attention/block_geometry';
import {blockGeometry} from '../../src/attention/block_geometry';
import type {AttentionCosts} from '../../src/attention/cost_model';
import {countBlocks, exactTime, expectedBlocks, sparsePays, sparseTime, whyExact} from '../../src/attention/cost_model';
import {backendDevice} from '../../src/kernels/backend_costs';
import {cpuCosts} from '../../src/kernels/cpu/costs';
import {webglCosts} from '../../src/kernels/webgl/costs';
import {webgpuCosts} from '../../src/kernels/webgpu/costs';
import {describeBackends} from '../setup/environment';
import {randomInputs, tensors} from '../reference/attention';

const sizes = {blockSize: 128, keyBlockSize: 64, segmentSize: 256};

function geometryOf(length: number, heads = 8, headDim = 64, cut = sizes): BlockGeometry {
  const info: TensorInfo = {shape: [1, heads, length, headDim], dtype: 'float32', dataId: {}};
  return blockGeometry(info, info, cut);
}

const deviceWith = (...features: string[]) =>
  ({features: new Set(features), limits: {maxComputeWorkgroupStorageSize: 49152}}) as unknown as GPUDevice;
const matrixDevice = Object.assign(deviceWith('shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'), {
  adapterInfo: {
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    subgroupMatrixConfigs: [{componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16}],
  },
});
const costsOf: Record<string, AttentionCosts> = {
  'WebGPU, float32': webgpuCosts(deviceWith(), 64, 'float32'),
  'WebGPU, float16': webgpuCosts(deviceWith('shader-f16'), 64, 'float16'),
  'WebGPU, float16 on matrix units': webgpuCosts(matrixDevice, 64, 'float16'),
  WebGL: webglCosts,
  CPU: cpuCosts,
};

const runsExact = (...call: Parameters<typeof whyExact>) => whyExact(...call) !== undefined;

function expectedDensity(...call: Parameters<typeof expectedBlocks>): number {
  const {kept, visible} = expectedBlocks(...call);
  return kept / visible;
}

describe('cost model', () => {
  const usual = {threshold: 0.9, causal: true, estimate: 'sampled'} as const;
  const paper = {...usual, ...paperOptions};

  it('knows what multiplies', () => {
    const rates = ['float32', 'float16', 'float16 on matrix units'].map(
      (name) => costsOf[`WebGPU, ${name}`].multiplyAdds,
    );
    expect(rates[0]).to.be.below(rates[1]);
    expect(rates[1]).to.be.below(rates[2]);
    expect(webgpuCosts(deviceWith(), 64, 'float16')).to.deep.equal(costsOf['WebGPU, float32']);
    // Blocks are chosen on matrix units in calls of float32, too.
    const {sampleMultiplyAdd, ...others} = webgpuCosts(matrixDevice, 64, 'float32');
    expect({...costsOf['WebGPU, float32'], sampleMultiplyAdd}).to.deep.equal({...others, sampleMultiplyAdd});
    expect(sampleMultiplyAdd).to.be.below(costsOf['WebGPU, float32'].sampleMultiplyAdd);
  });

  // Node with Dawn on the H200, docs/benchmarks.md of commit 6e00fff: exact attention; the four stages; blocks kept. 4 heads of 64.
  const measured: Array<[number, number, number, number]> = [
    [4096, 0.386, 0.335, 0.519],
    [8192, 1.52, 0.689, 0.332],
    [16384, 5.81, 1.444, 0.195],
  ];
  for (const [length, exact, sparse, density] of measured) {
    it(`is near what was measured by the paper's rule at ${length} tokens`, () => {
      const geometry = geometryOf(length, 4, 64, paperOptions);
      // Attention itself is a quarter faster since.
      const costs = {...costsOf['WebGPU, float32'], multiplyAdds: 1.18e10};
      expect(exactTime(geometry, true, costs) / exact).to.be.within(0.9, 1.1);
      expect(sparseTime(geometry, paper, costs) / sparse).to.be.within(0.9, 1.15);
      expect(expectedDensity(geometry, paper)).to.be.closeTo(density, 0.01);
    });
  }

  // The same host, docs/benchmarks of 2026-11-30, on the GPU: exact attention and all stages by the rule that is the default. 4 heads of 64.
  const measuredSince: Array<[number, number, number]> = [
    [4096, 0.308, 0.302],
    [8192, 1.21, 0.601],
  ];
  for (const [length, exact, sparse] of measuredSince) {
    it(`is near what was measured by the default rule at ${length} tokens`, () => {
      const geometry = geometryOf(length, 4);
      const costs = webgpuCosts(matrixDevice, 64, 'float32');
      expect(exactTime(geometry, true, costs) / exact).to.be.within(0.9, 1.1);
      expect(sparseTime(geometry, usual, costs) / sparse).to.be.within(0.9, 1.15);
    });
  }

  // Qwen2.5-Coder-0.5B, docs/experiments/real.
  for (const [length, density] of [
    [8192, 0.309],
    [16384, 0.225],
    [32640, 0.16],
  ]) {
    it(`expects the density that the sampled estimate gave at ${length} tokens`, () => {
      expect(expectedDensity(geometryOf(length), usual)).to.be.closeTo(density, 0.005);
    });
  }

  // Chromium on the H200, docs/benchmarks-webgl.md of commit 6e00fff: exact and block-sparse attention. 4 heads of 64.
  const measuredOnWebGL: Array<[number, number, number]> = [
    [4096, 16.6, 10.8],
    [8192, 62.0, 26.4],
    [16384, 242, 64.8],
  ];
  for (const [length, exact, sparse] of measuredOnWebGL) {
    it(`is near what was measured by the paper's rule on WebGL at ${length} tokens`, () => {
      const geometry = geometryOf(length, 4, 64, paperOptions);
      expect(exactTime(geometry, true, webglCosts) / exact).to.be.within(0.9, 1.1);
      expect(sparseTime(geometry, paper, webglCosts) / sparse).to.be.within(0.9, 1.1);
    });
  }

  it('counts the pairs of queries and keys of a chunk, and the values of both', () => {
    const info = (...shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
    const costs = {...cpuCosts, multiplyAdds: 1};
    const chunk = (queryOffset: number) =>
      blockGeometry(info(2, 3, 40, 8), info(2, 3, 100, 8), {...sizes, queryOffset}, info(2, 3, 100, 5));
    let pairs = 0;
    for (let row = 0; row < 40; ++row) pairs += 50 + row + 1;
    expect(exactTime(chunk(50), true, costs)).to.equal(2 * 3 * pairs * (8 + 5));
    expect(exactTime(chunk(50), false, costs)).to.equal(2 * 3 * 40 * 100 * (8 + 5));
  });

  it('does not expect a token to pay for a plan of its own', () => {
    const token = blockGeometry(
      {shape: [1, 8, 1, 64], dtype: 'float32', dataId: {}},
      {shape: [1, 8, 16384, 64], dtype: 'float32', dataId: {}},
      sizes,
    );
    for (const [name, costs] of Object.entries(costsOf)) {
      expect(sparsePays(token, paper, costs), name).to.equal(false);
      // On the CPU less arithmetic is less time, whatever the number of programs.
      if (name !== 'CPU') {
        expect(sparsePays(token, usual, costs), `${name}, sampled`).to.equal(false);
      }
    }
  });

  it('decides by length', () => {
    for (const [name, costs] of Object.entries(costsOf)) {
      for (const [rules, cut] of [
        [usual, sizes],
        [paper, paperOptions],
      ] as const) {
        const what = `${name}, ${rules.estimate}`;
        expect(sparsePays(geometryOf(16384, 8, 64, cut), rules, costs), `${what}, 16,384 tokens`).to.equal(true);
        expect(sparsePays(geometryOf(1024, 8, 64, cut), rules, costs), `${what}, 1,024 tokens`).to.equal(false);
      }
    }
    const webgpu = costsOf['WebGPU, float32'];
    const paysByPaper = (length: number, heads = 8, costs = webgpu) =>
      sparsePays(geometryOf(length, heads, 64, paperOptions), paper, costs);
    expect(paysByPaper(2048)).to.equal(false);
    expect(paysByPaper(4096)).to.equal(true);
    expect(paysByPaper(4096, 8, costsOf['WebGPU, float16'])).to.equal(false);
    expect(paysByPaper(4096, 1), 'one head').to.equal(false);
  });

  it('never overrides what the options ask for', () => {
    const costs = costsOf['WebGPU, float32'];
    const long = geometryOf(16384);
    expect(runsExact(long, {...usual, auto: true}, costs)).to.equal(false);
    expect(runsExact(long, {...usual, threshold: 1, auto: true}, costs)).to.equal(true);
    expect(runsExact(long, {...usual, threshold: 1, auto: false}, costs)).to.equal(true);
    expect(runsExact(geometryOf(2048), {...usual, auto: false}, costs)).to.equal(false);
    expect(runsExact(geometryOf(256), {...usual, auto: false}, costs)).to.equal(true);
  });

  const anyCosts = fc.constantFrom(...Object.values(costsOf));
  const anyCall = fc.record({
    length: fc.integer({min: 257, max: 60_000}),
    heads: fc.integer({min: 1, max: 40}),
    headDim: fc.constantFrom(32, 64, 80, 128),
    threshold: fc.double({min: 0, max: 1, noNaN: true}),
    causal: fc.boolean(),
    estimate: fc.constantFrom('sampled' as const, 'pooled' as const),
    costs: anyCosts,
  });

  it('expects at least what the rules keep, at most everything, more with a higher threshold', () => {
    fc.assert(
      fc.property(anyCall, fc.double({min: 0, max: 1, noNaN: true}), ({length, threshold, ...call}, other) => {
        const geometry = geometryOf(length);
        const {fewest, visible} = countBlocks(geometry, call.causal);
        const [low, high] = [threshold, other].sort((a, b) => a - b);
        const density = expectedDensity(geometry, {...call, threshold: low});
        expect(density).to.be.within(fewest / visible, 1);
        expect(expectedDensity(geometry, {...call, threshold: high})).to.be.at.least(density);
      }),
      {seed: 1},
    );
  });

  it('pays with more heads, a lower threshold or a slower device wherever it pays at all', () => {
    let pays = 0;
    fc.assert(
      fc.property(anyCall, fc.integer({min: 2, max: 50}), ({length, heads, headDim, costs, ...options}, times) => {
        if (!sparsePays(geometryOf(length, heads, headDim), options, costs)) {
          return;
        }
        ++pays;
        expect(sparsePays(geometryOf(length, heads * times, headDim), options, costs), 'heads').to.equal(true);
        const lower = {...options, threshold: options.threshold / times};
        expect(sparsePays(geometryOf(length, heads, headDim), lower, costs), 'threshold').to.equal(true);
        // Everything on the device takes so many times longer; recording does not.
        const slower = {...costs, multiplyAdds: costs.multiplyAdds / times};
        for (const name of [
          'fixed',
          'proxyMultiplyAdd',
          'sampleMultiplyAdd',
          'pooledValue',
          'blockPairValue',
          'blockTriple',
        ] as const) {
          slower[name] *= times;
        }
        expect(sparsePays(geometryOf(length, heads, headDim), options, slower), 'slower').to.equal(true);
      }),
      {seed: 2, numRuns: 300},
    );
    expect(pays).to.be.above(100);
  });

  it('pays at every longer length, up to the longest measured', () => {
    for (const costs of Object.values(costsOf)) {
      for (const rules of [usual, paper]) {
        const pays = Array.from({length: 128}, (_, i) => sparsePays(geometryOf(256 * (i + 1)), rules, costs));
        expect(pays.slice(pays.indexOf(true)).every((x) => x)).to.equal(true);
        expect(pays[127]).to.equal(true);
      }
    }
  });
});

describeBackends('auto', (backend) => {
  before(() => setBackend(backend));
  const cut = {blockSize: 16, keyBlockSize: 8, segmentSize: 32};

  it('counts the fewest blocks that a plan can keep', async () => {
    const inputs = randomInputs({length: 200, headDim: 8}, 51);
    const [q, k] = tensors(inputs);
    for (const causal of [true, false]) {
      const {fewest, visible} = countBlocks(geometryOf(200, 1, 8, cut), causal);
      const options = {...cut, causal, threshold: 0, permute: false};
      const density = await pbsAttentionDensity(pbsAttentionPlan(q, k, options), options);
      expect(density).to.be.closeTo(fewest / visible, 1e-6);
    }
  });

  it('is exact attention, to the last bit, where blocks do not pay; and by default', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 200, headDim: 16}, 52));
    const options = {...cut, threshold: 0.8};
    const exact = Array.from(await flashAttention(q, k, v).data());
    expect(Array.from(await pbsAttention(q, k, v, options).data())).to.deep.equal(exact);
    expect(Array.from(await pbsAttention(q, k, v, {...options, auto: true}).data())).to.deep.equal(exact);
    expect(Array.from(await pbsAttention(q, k, v, {...options, auto: false}).data())).not.to.deep.equal(exact);
  });

  it('attends to blocks, to the last bit, where they pay', async function () {
    this.timeout(180_000);
    // Where arithmetic is slow, blocks pay at lengths that software gets through.
    const isSlow = backend === 'cpu' || backendDevice().deviceClass === 'software';
    const shape = isSlow ? {length: 2048, headDim: 8} : {heads: 2, length: 8192, headDim: 32};
    const options = {threshold: 0};
    const [q, k, v] = tensors(randomInputs(shape, 53));
    const byDefault = Array.from(await pbsAttention(q, k, v, options).data());
    const blocks = Array.from(await pbsAttention(q, k, v, {...options, auto: false}).data());
    expect(byDefault.every((x, i) => x === blocks[i])).to.equal(true);
    const plan = pbsAttentionPlan(q, k, options);
    expect(await pbsAttentionDensity(plan), 'blocks left out').to.be.below(0.5);
  });

  it('leaves the plan alone', async () => {
    const [q, k] = tensors(randomInputs({length: 200, headDim: 16}, 54));
    const maskOf = async (auto: boolean) =>
      Array.from(await pbsAttentionPlan(q, k, {...cut, threshold: 0.8, auto}).blockMask.data());
    const mask = await maskOf(true);
    expect(mask).to.deep.equal(await maskOf(false));
    expect(mask).to.include(0);
  });
});
