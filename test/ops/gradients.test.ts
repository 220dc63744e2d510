import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, memory, setBackend, tidy} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import fc from 'fast-check';
import type {PBSAttentionReport} from '../../src/index';
import {pbsAttention, pbsAttentionPlan} from '../../src/index';
import {attentionContext} from '../../src/kernels/webgl/runtime/context';
import type {Gradients, Visibility} from '../reference/attention_gradients';
import {
  attentionLoss,
  composedGradients,
  exactVisibility,
  flashGradients,
  gradientsOf,
  grads4D,
  outputGradient,
  pbsGradients,
  plannedVisibility,
} from '../reference/attention_gradients';
import {describeAllBackends, describeOnCPU, testBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {Inputs, Shape} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';

const sizes = {blockSize: 8, keyBlockSize: 4, segmentSize: 16, threshold: 0.7, auto: false};
const names = ['query', 'key', 'value'] as const;

function expectGradients(actual: Gradients, expected: Gradients, tolerance: number): void {
  for (const name of names) {
    expect(relativeL1(actual[name], expected[name]), `gradient of ${name}`).to.be.below(tolerance);
  }
}

describeOnCPU('gradients against finite differences', () => {
  /** Central differences of a float64 loss, exact to about 1e-9: truncation 1e-10, rounding 1e-16 / 1e-5. */
  function finiteDifferences(inputs: Inputs, dy: Float32Array, visibility: Visibility): Gradients {
    const {queryShape, keyShape} = inputs;
    const [query, key, value] = names.map((name) => Float64Array.from(inputs[name]));
    const variables = {query, key, value, queryShape, keyShape};
    const step = 1e-5;
    const byEach = (values: Float64Array) =>
      values.map((x, i) => {
        const lossAt = (at: number) => {
          values[i] = at;
          return attentionLoss(variables, dy, visibility);
        };
        const difference = (lossAt(x + step) - lossAt(x - step)) / (2 * step);
        values[i] = x;
        return difference;
      });
    return {query: byEach(query), key: byEach(key), value: byEach(value)};
  }

  const inputs = randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 19, headDim: 3}, 61);
  const dy = outputGradient(inputs, 61);
  // What float32 inputs of the kernel's last rounding leave: 2⁻²⁴ of a sum of terms that partly cancel.
  const tolerance = 1e-6;

  for (const causal of [true, false]) {
    it(`exact attention, causal ${causal}`, async () => {
      const expected = finiteDifferences(inputs, dy, exactVisibility(inputs, causal));
      expectGradients(await flashGradients('cpu', inputs, dy, {causal}), expected, tolerance);
    });

    it(`sparse attention, causal ${causal}: the selection is a constant`, async () => {
      const options = {...sizes, blockSize: 4, keyBlockSize: 2, segmentSize: 4, causal};
      const visibility = await plannedVisibility('cpu', inputs, options);
      const seen = (x: Visibility) => x.reduce((sum, kept) => sum + kept, 0);
      expect(seen(visibility)).to.be.below(0.8 * seen(exactVisibility(inputs, causal)));
      const expected = finiteDifferences(inputs, dy, visibility);
      expectGradients(await pbsGradients('cpu', inputs, dy, options), expected, tolerance);
    });
  }
});

describeAllBackends('gradients against composed attention', (backend) => {
  const cases: Array<{shape: Shape; causal: boolean}> = [
    {shape: {length: 70, headDim: 16}, causal: true},
    {shape: {batch: 2, heads: 4, keyValueHeads: 2, length: 45, headDim: 34}, causal: true},
    {shape: {heads: 2, keyValueHeads: 1, length: 3, headDim: 34}, causal: false},
  ];
  // Float32 sums on both sides, and gradients of scores that are differences of close numbers.
  const tolerance = 2e-5;

  for (const {shape, causal} of cases) {
    const inputs = randomInputs(shape, 62);
    const dy = outputGradient(inputs, 62);
    const name = `${JSON.stringify(shape)}, causal ${causal}`;

    it(`flashAttention ${name}`, async () => {
      const expected = await composedGradients(inputs, dy, exactVisibility(inputs, causal));
      expectGradients(await flashGradients(backend, inputs, dy, {causal}), expected, tolerance);
    });

    it(`pbsAttention over its blocks ${name}`, async () => {
      const options = {...sizes, causal};
      const expected = await composedGradients(inputs, dy, await plannedVisibility(backend, inputs, options));
      expectGradients(await pbsGradients(backend, inputs, dy, options), expected, tolerance);
    });
  }

  it('pbsAttention with threshold 1, which is exact', async () => {
    const inputs = randomInputs({length: 70, headDim: 16}, 62);
    const dy = outputGradient(inputs, 62);
    const expected = await composedGradients(inputs, dy, exactVisibility(inputs, true));
    expectGradients(await pbsGradients(backend, inputs, dy, {...sizes, threshold: 1}), expected, tolerance);
  });

  it('takes the exact form where auto makes the forward pass exact', async () => {
    const inputs = randomInputs({heads: 2, length: 50, headDim: 34}, 63);
    const dy = outputGradient(inputs, 63);
    const expected = await composedGradients(inputs, dy, exactVisibility(inputs, true));
    expectGradients(await pbsGradients(backend, inputs, dy, {...sizes, auto: true}), expected, tolerance);
  });

  it('is the same where the call makes a report, or is given a plan that was made of the variables', async () => {
    const inputs = randomInputs({heads: 2, length: 50, headDim: 34}, 67);
    const dy = outputGradient(inputs, 67);
    const expected = await pbsGradients(backend, inputs, dy, sizes);
    let density = 0;
    const onReport = async (report: PBSAttentionReport) => {
      density = await report.density();
      report.dispose();
    };
    const before = memory().numTensors;
    expectGradients(await pbsGradients(backend, inputs, dy, {...sizes, onReport}), expected, 1e-6);
    expect(density).to.be.within(0.1, 0.95);
    expect(memory().numTensors).to.equal(before);
    const planned = (q: Tensor4D, k: Tensor4D, v: Tensor4D) =>
      pbsAttention(q, k, v, {...sizes, plan: pbsAttentionPlan(q, k, sizes)});
    expectGradients(await gradientsOf(backend, inputs, dy, planned), expected, 1e-6);
  });

  it('frees all but the gradients', async () => {
    await setBackend(backend);
    const [q, k, v] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 50, headDim: 34}, 64));
    const dy = q.clone();
    const before = memory().numTensors;
    const attention = (query: Tensor4D, key: Tensor4D, value: Tensor4D) => pbsAttention(query, key, value, sizes);
    const all = grads4D(attention)([q, k, v], dy);
    expect(memory().numTensors).to.equal(before + 3);
    all.forEach((x) => x.dispose());
    // The gradients of key and value are computed with it and not asked for.
    const alone = grads4D((x) => attention(x, k, v))([q], dy);
    expect(memory().numTensors).to.equal(before + 1);
    [q, k, v, dy, ...alone].forEach((x) => x.dispose());
  });

  it('has no gradient of a gradient, and says so', async () => {
    await setBackend(backend);
    tidy(() => {
      const [q, k, v] = tensors(randomInputs({length: 20, headDim: 34}, 65));
      const first = grads4D((query, key, value) => pbsAttention(query, key, value, sizes));
      const second = grads4D((x) => first([x, k, v])[0]);
      expect(() => second([q])).to.throw(/PBSAttentionGrad/);
    });
  });
});

if (testBackends().includes('webgl')) {
  describe('gradients drawn in parts [webgl]', () => {
    it('are the same in several ranges of heads and groups, rounds of blocks and draws', async () => {
      await setBackend('webgl');
      const context = attentionContext('test', activeBackend() as MathBackendWebGL);
      const {scratchTexels, fetchesPerDraw} = context;
      const inputs = randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 45, headDim: 34}, 66);
      const dy = outputGradient(inputs, 66);
      for (const texels of [2 ** 9, 2 ** 12]) {
        Object.assign(context, {scratchTexels: texels, fetchesPerDraw: 2 ** 10});
        try {
          const exact = await flashGradients('webgl', inputs, dy, {causal: true});
          expectGradients(exact, await flashGradients('cpu', inputs, dy, {causal: true}), 2e-5);
          const sparse = await pbsGradients('webgl', inputs, dy, sizes);
          expectGradients(sparse, await pbsGradients('cpu', inputs, dy, sizes), 2e-5);
        } finally {
          Object.assign(context, {scratchTexels, fetchesPerDraw});
        }
      }
    });
  });
}

/** Shapes that straddle every boundary: of tiles, blocks and segments, of vec4 columns, of grouped heads and batches. */
const randomCase = fc.record({
  batch: fc.integer({min: 1, max: 2}),
  keyValueHeads: fc.integer({min: 1, max: 2}),
  group: fc.integer({min: 1, max: 3}),
  // One key has weight 1, whatever the query: gradients that are 0.
  length: fc.integer({min: 2, max: 60}),
  // One head dim, whose vectors are not whole and take two chunks: each is another set of shaders, slow to compile.
  headDim: fc.constant(34),
  blockSize: fc.constantFrom(4, 24),
  keyBlockSize: fc.constantFrom(4, 8, 24),
  estimate: fc.constantFrom('sampled' as const, 'pooled' as const),
  blocksPerSegment: fc.integer({min: 1, max: 2}),
  causal: fc.boolean(),
  seed: fc.integer({min: 1, max: 1e6}),
});

for (const backend of testBackends().filter((name) => name !== 'cpu')) {
  describe(`gradients of random shapes against the CPU [${backend}]`, function () {
    this.timeout(300_000);

    it('are the same over the same blocks', async () => {
      // With a fixed seed a failure repeats; the seed of a failure found elsewhere can be put here.
      const parameters = {seed: 20261125, numRuns: 8, endOnFailure: true};
      let compared = 0;
      await fc.assert(
        fc.asyncProperty(randomCase, async ({keyValueHeads, group, blocksPerSegment, seed, ...rest}) => {
          const {batch, length, headDim, blockSize, keyBlockSize, estimate, causal} = rest;
          const inputs = randomInputs({batch, heads: keyValueHeads * group, keyValueHeads, length, headDim}, seed);
          const dy = outputGradient(inputs, seed);
          const cut = {blockSize, keyBlockSize, segmentSize: keyBlockSize * blocksPerSegment};
          const options = {...sizes, ...cut, estimate, threshold: estimate === 'sampled' ? 0.7 : 0.5, causal};
          expectGradients(
            await flashGradients(backend, inputs, dy, {causal}),
            await flashGradients('cpu', inputs, dy, {causal}),
            1e-4,
          );
          const [planned, expected] = [
            await plannedVisibility(backend, inputs, options),
            await plannedVisibility('cpu', inputs, options),
          ];
          // Where rounding decided about a block, the two sum over different ones.
          if (planned.every((seen, i) => seen === expected[i])) {
            expectGradients(
              await pbsGradients(backend, inputs, dy, options),
              await pbsGradients('cpu', inputs, dy, options),
              1e-4,
            );
            ++compared;
          }
        }),
        parameters,
      );
      expect(compared, 'cases in which rounding decided nothing').to.be.above(parameters.numRuns / 2);
    });
  });
}
