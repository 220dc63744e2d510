import type {TensorInfo} from '@tensorflow/tfjs-core';
import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import fc from 'fast-check';
import type {PBSAttentionOptions, PBSAttentionSettings} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, isExact} from '../../src/kernels/block_geometry';
import {expectSameMasks} from '../block_masks';
import {testBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import type {Inputs, Shape} from '../reference';
import {randomInputs, tensors} from '../reference';

interface RandomCase {
  shape: Required<Shape>;
  options: Required<Omit<PBSAttentionSettings, 'scale' | 'precision' | 'auto'>>;
  seed: number;
}

/** Shapes that straddle every boundary: of tiles, blocks and segments, of vec4 columns, of grouped heads and batches. */
const randomCase = fc
  .record({
    batch: fc.integer({min: 1, max: 2}),
    keyValueHeads: fc.integer({min: 1, max: 2}),
    group: fc.integer({min: 1, max: 3}),
    length: fc.integer({min: 1, max: 150}),
    // Few head dims: each is another set of shaders, and compiling takes longest in software.
    headDim: fc.constantFrom(8, 20, 34),
    blockSize: fc.constantFrom(4, 8, 24),
    blocksPerSegment: fc.integer({min: 1, max: 3}),
    threshold: fc.integer({min: 0, max: 20}).map((x) => x / 20),
    causal: fc.boolean(),
    permute: fc.boolean(),
    exactLastBlock: fc.boolean(),
    seed: fc.integer({min: 1, max: 1e6}),
  })
  .map((x): RandomCase => ({
    shape: {
      batch: x.batch,
      heads: x.keyValueHeads * x.group,
      keyValueHeads: x.keyValueHeads,
      length: x.length,
      headDim: x.headDim,
    },
    options: {
      blockSize: x.blockSize,
      segmentSize: x.blockSize * x.blocksPerSegment,
      threshold: x.threshold,
      causal: x.causal,
      permute: x.permute,
      exactLastBlock: x.exactLastBlock,
    },
    seed: x.seed,
  }));

async function run(backend: string, inputs: Inputs, options: PBSAttentionOptions) {
  await setBackend(backend);
  const [q, k, v] = tensors(inputs);
  const {causal} = options;
  const plan = pbsAttentionPlan(q, k, options);
  const results = [
    plan.keyIndices,
    plan.blockMask,
    pbsAttention(q, k, v, {...options, auto: false}),
    flashAttention(q, k, v, {causal}),
  ];
  const [keyIndices, blockMask, sparse, exact] = await Promise.all(results.map((x) => x.data()));
  [q, k, v, ...results].forEach((x) => x.dispose());
  return {keyIndices, blockMask, sparse, exact};
}

/** Checks the masks; whether no row was left to rounding, so that outputs can be compared. */
function expectPlan(
  {query, key, queryShape, keyShape}: Inputs,
  options: RandomCase['options'],
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
): boolean {
  const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const geometry = blockGeometry(info(queryShape), info(keyShape), options);
  if (isExact(geometry, options)) {
    expect(Array.from(actual), 'block mask').to.deep.equal(Array.from(expected));
    return true;
  }
  const attrs = {...options, scale: 1 / Math.sqrt(geometry.headDim)};
  return expectSameMasks(actual, expected, query, key, geometry, attrs).size === 0;
}

for (const backend of testBackends().filter((name) => name !== 'cpu')) {
  describe(`random shapes against the CPU [${backend}]`, function () {
    this.timeout(300_000);

    it('gives the same plan and the same attention', async () => {
      // With a fixed seed a failure repeats; the seed of a failure found elsewhere can be put here.
      const parameters = {seed: 20261123, numRuns: 40, endOnFailure: true};
      let compared = 0;
      await fc.assert(
        fc.asyncProperty(randomCase, async ({shape, options, seed}) => {
          const inputs = randomInputs(shape, seed);
          const cpu = await run('cpu', inputs, options);
          const gpu = await run(backend, inputs, options);
          expect(relativeL1(gpu.exact, cpu.exact), 'flashAttention').to.be.below(1e-4);
          expect(Array.from(gpu.keyIndices), 'key order').to.deep.equal(Array.from(cpu.keyIndices));
          const sameMasks = expectPlan(inputs, options, gpu.blockMask, cpu.blockMask);
          if (sameMasks) {
            expect(relativeL1(gpu.sparse, cpu.sparse), 'pbsAttention').to.be.below(1e-4);
            ++compared;
          }
        }),
        parameters,
      );
      expect(compared, 'cases in which rounding decided nothing').to.be.above(parameters.numRuns / 2);
    });
  });
}
