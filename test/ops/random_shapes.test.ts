import type {TensorInfo} from '@tensorflow/tfjs-core';
import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import fc from 'fast-check';
import type {PBSAttentionOptions, PBSAttentionSettings} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, isExact} from '../../src/attention/block_geometry';
import {expectSameMasks} from '../reference/block_masks';
import {testBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {Inputs, RectangularShape} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';

interface RandomCase {
  shape: RectangularShape;
  options: Required<
    Omit<PBSAttentionSettings, 'scale' | 'precision' | 'auto' | 'causalSafe' | 'window' | 'softCap' | 'expectedDensity'>
  > & {queryOffset?: number; keyLengths?: number[]};
  seed: number;
}

/** Shapes that straddle every boundary: of tiles, blocks and segments, of vec4 columns, of grouped heads and batches. */
const randomCase = fc
  .record({
    batch: fc.integer({min: 1, max: 2}),
    keyValueHeads: fc.integer({min: 1, max: 2}),
    group: fc.integer({min: 1, max: 3}),
    length: fc.integer({min: 1, max: 150}),
    // One head dim, whose vectors are not whole and take two chunks: each is another set of shaders, slow to compile.
    headDim: fc.constant(34),
    blockSize: fc.constantFrom(4, 12, 24),
    keyBlockSize: fc.constantFrom(4, 8, 12, 24),
    blocksPerSegment: fc.integer({min: 1, max: 3}),
    estimate: fc.constantFrom('sampled' as const, 'pooled' as const),
    threshold: fc.integer({min: 0, max: 20}).map((x) => x / 20),
    causal: fc.boolean(),
    permute: fc.boolean(),
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
      keyBlockSize: x.keyBlockSize,
      segmentSize: x.keyBlockSize * x.blocksPerSegment,
      estimate: x.estimate,
      // Most of what a low threshold keeps by the sampled estimate of so few keys is what is always kept.
      threshold: x.estimate === 'sampled' ? (3 + x.threshold) / 4 : x.threshold,
      causal: x.causal,
      permute: x.permute,
    },
    seed: x.seed,
  }));

/** The same with keys before and after a chunk of queries, padding, and values of another dim. */
const randomForm = fc
  .record({
    square: randomCase,
    before: fc.integer({min: 0, max: 100}),
    after: fc.integer({min: 0, max: 30}),
    valueDim: fc.constant(34),
    ends: fc.option(fc.tuple(fc.integer({min: 0, max: 280}), fc.integer({min: 0, max: 280}))),
  })
  .map(({square, before, after, valueDim, ends}): RandomCase => {
    // Few rows: a larger tile for exact attention is another set of shaders.
    const length = Math.ceil(square.shape.length / 10);
    const keyLength = before + length + after;
    return {
      ...square,
      shape: {...square.shape, headDim: 8, length, keyLength, valueDim},
      options: {
        ...square.options,
        queryOffset: before,
        ...(ends && {keyLengths: ends.slice(0, square.shape.batch ?? 1).map((end) => Math.min(end, keyLength))}),
      },
    };
  });

async function run(backend: string, inputs: Inputs, options: PBSAttentionOptions) {
  await setBackend(backend);
  const [q, k, v] = tensors(inputs);
  const {causal, queryOffset, keyLengths} = options;
  const plan = pbsAttentionPlan(q, k, options);
  const results = [
    plan.keyIndices,
    plan.blockMask,
    pbsAttention(q, k, v, {...options, auto: false}),
    flashAttention(q, k, v, {causal, queryOffset, keyLengths}),
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
  const keyLengths = options.keyLengths && Int32Array.from(options.keyLengths);
  return expectSameMasks(actual, expected, query, key, geometry, attrs, {keyLengths}).size === 0;
}

for (const backend of testBackends().filter((name) => name !== 'cpu')) {
  describe(`random shapes against the CPU [${backend}]`, function () {
    this.timeout(300_000);

    async function compare(cases: fc.Arbitrary<RandomCase>, numRuns: number) {
      // With a fixed seed a failure repeats; the seed of a failure found elsewhere can be put here.
      const parameters = {seed: 20261123, numRuns, endOnFailure: true};
      let compared = 0;
      await fc.assert(
        fc.asyncProperty(cases, async ({shape, options, seed}) => {
          const inputs = randomInputs(shape, seed);
          const cpu = await run('cpu', inputs, options);
          const gpu = await run(backend, inputs, options);
          expectClose(gpu.exact, cpu.exact, 'flashAttention');
          expect(Array.from(gpu.keyIndices), 'key order').to.deep.equal(Array.from(cpu.keyIndices));
          const sameMasks = expectPlan(inputs, options, gpu.blockMask, cpu.blockMask);
          if (sameMasks) {
            expectClose(gpu.sparse, cpu.sparse, 'pbsAttention');
            ++compared;
          }
        }),
        parameters,
      );
      expect(compared, 'cases in which rounding decided nothing').to.be.above(parameters.numRuns / 2);
    }

    it('gives the same plan and the same attention', () => compare(randomCase, 16));

    it('gives the same of chunks, padded batches and values of another dim', () => compare(randomForm, 20));
  });
}

/** As a relative difference, or both zero throughout: of a batch that is padding alone. */
function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  if (Array.from(expected).every((x) => x === 0)) {
    expect(
      Array.from(actual).every((x) => x === 0),
      what,
    ).to.equal(true);
  } else {
    expect(relativeL1(actual, expected), what).to.be.below(1e-4);
  }
}
