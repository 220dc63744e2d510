import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {BlockGeometry} from '../../src/kernels/block_geometry';
import {blockGeometry} from '../../src/kernels/block_geometry';
import * as cpuAttend from '../../src/kernels/cpu/attend';
import * as cpuRemainder from '../../src/kernels/cpu/attend_remainder';
import * as cpuMask from '../../src/kernels/cpu/block_mask';
import * as cpuPermute from '../../src/kernels/cpu/permute';
import * as cpuProbe from '../../src/kernels/cpu/probe_rows';
import * as cpuProbed from '../../src/kernels/cpu/probed_scores';
import * as cpuScore from '../../src/kernels/cpu/score_blocks';
import * as cpuSelect from '../../src/kernels/cpu/select_blocks';
import {testBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import type {Inputs} from '../reference';
import {randomInputs} from '../reference';
import type {StageRunner} from '../stages/stage_runner';
import {webglStages} from '../stages/webgl_stages';
import {webgpuStages} from '../stages/webgpu_stages';

const runners: Array<{name: string; backend: string; open: () => StageRunner}> = [
  {name: 'webgpu', backend: 'webgpu', open: () => webgpuStages(activeBackend() as WebGPUBackend)},
  {name: 'webgl', backend: 'webgl', open: () => webglStages(activeBackend() as MathBackendWebGL)},
  {
    // Little scratch: one head and few groups at a time, one block a round. Few fetches: a draw for every line.
    name: 'webgl, in small pieces',
    backend: 'webgl',
    open: () => webglStages(activeBackend() as MathBackendWebGL, {scratchTexels: 2 ** 9, fetchesPerDraw: 2 ** 10}),
  },
];

interface Case {
  name: string;
  inputs: Inputs;
  sizes: {blockSize: number; segmentSize: number};
}
const cases: Case[] = [
  {
    name: 'grouped heads, partial block and segment',
    inputs: randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 16}, 31),
    sizes: {blockSize: 16, segmentSize: 32},
  },
  {
    // Blocks of 24 are cut into tiles of 16 queries and 32 keys: neither may reach into the next block.
    name: 'blocks that are no multiple of a tile',
    inputs: randomInputs({heads: 2, keyValueHeads: 1, length: 150, headDim: 64}, 33),
    sizes: {blockSize: 24, segmentSize: 48},
  },
  {
    name: 'blocks smaller than a tile',
    inputs: randomInputs({heads: 2, length: 50, headDim: 12}, 35),
    sizes: {blockSize: 3, segmentSize: 6},
  },
  {
    // 128 keys are one chunk of WebGPU's proxy pass (512 of WebGL's), 128 threads one round of selection, 256 of the sort.
    name: 'more than one chunk, round and tile everywhere',
    inputs: randomInputs({heads: 1, length: 1400, headDim: 10}, 32),
    sizes: {blockSize: 8, segmentSize: 640},
  },
];
const scale = 0.3;

function geometryOf({inputs, sizes}: Pick<Case, 'inputs' | 'sizes'>): BlockGeometry {
  const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  return blockGeometry(info(inputs.queryShape), info(inputs.keyShape), sizes);
}

/** Each stage on its own: the GPU's stage gets what the CPU stages before it gave. */
for (const {name, backend, open} of runners.filter((runner) => testBackends().includes(runner.backend))) {
  describe(`stages against the CPU stages of the same name [${name}]`, function () {
    this.timeout(300_000);
    let stages: StageRunner;
    before(async () => {
      await setBackend(backend);
      stages = open();
    });

    for (const testCase of cases) {
      describe(testCase.name, () => {
        const {inputs} = testCase;
        const {query, key, value} = inputs;
        const geometry = geometryOf(testCase);

        it('permute', async () => {
          const expected = cpuPermute.permute(query, key, geometry, scale, true);
          const actual = await stages.permute(inputs, {geometry, scale, causal: true});
          expect(relativeL1(actual.keyScores, expected.keyScores)).to.be.below(1e-5);
          expect(Array.from(actual.keyIndices)).to.deep.equal(Array.from(expected.keyIndices));
        });

        for (const [causal, exactLastBlock] of [
          [true, false],
          [true, true],
          [false, true],
        ]) {
          it(`score blocks: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const expected = cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock);
            const actual = await stages.scoreBlocks(inputs, order, {geometry, scale, causal, exactLastBlock});
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });

          it(`select blocks and mask: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const scores = Float32Array.from(
              cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock),
            );
            await expectSelection(scores, order.keyIndices, causal, false);
          });
        }

        it('choose probe rows', async () => {
          const rowsOf = (x: ArrayLike<number>, block: number) => Array.from({length: 5}, (_, i) => x[5 * block + i]);
          const expected = cpuProbe.chooseProbeRows(query, geometry, 5);
          const actual = await stages.chooseProbeRows(inputs, geometry, 5);
          expect(actual).to.have.length(expected.length);
          for (let block = 0; block < expected.length / 5; ++block) {
            const [rows, others] = [rowsOf(expected, block), rowsOf(actual, block)];
            // Both rows of a block of two lie equally far from their mean: rounding decides.
            if (new Set(rows).size === 2) {
              expect(new Set(others)).to.deep.equal(new Set(rows));
            } else {
              expect(others, `block ${block}`).to.deep.equal(rows);
            }
          }
        });

        for (const causal of [true, false]) {
          // 5 rows are no whole group of four, and more than some blocks have.
          it(`probed scores, and their selection: causal ${causal}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const expected = cpuProbed.probedScores(query, key, order, geometry, scale, causal, true, 5);
            const options = {geometry, scale, causal, exactLastBlock: true, probeRows: 5};
            expect(relativeL1(await stages.probedScores(inputs, order, options), expected)).to.be.below(1e-5);
            await expectSelection(Float32Array.from(expected), order.keyIndices, causal, true);
          });

          it(`attend with the remainder: causal ${causal}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const scores = cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, true);
            const blockLists = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.4, causal);
            const plan = {keyIndices: order.keyIndices, blockLists};
            const skipped = cpuRemainder.attendRemainder(query, key, value, geometry, scale, causal, plan);
            const expected = cpuAttend.attend(query, key, value, geometry, scale, causal, plan, {}, skipped);
            const actual = await stages.attend(inputs, plan, {geometry, scale, causal, remainder: true});
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });
        }

        async function expectSelection(
          scores: Float32Array,
          keyIndices: Int32Array,
          causal: boolean,
          ownCounts: boolean,
        ): Promise<void> {
          const {keyBlocks} = geometry;
          const options = {geometry, scale, causal, threshold: 0.613, ownCounts};
          const expected = cpuSelect.selectBlocks(scores, keyIndices, geometry, options.threshold, causal, ownCounts);
          const {blockLists, blockMask} = await stages.selectBlocks(scores, keyIndices, options);
          for (let start = 0; start < expected.length; start += keyBlocks + 1) {
            const list = (x: ArrayLike<number>) => Array.from({length: x[start] + 1}, (_, i) => x[start + i]);
            expect(list(blockLists), `row ${start / (keyBlocks + 1)}`).to.deep.equal(list(expected));
          }
          expect(Array.from(blockMask)).to.deep.equal(Array.from(cpuMask.blockMask(expected, geometry)));
        }

        it('attend', async () => {
          const order = cpuPermute.permute(query, key, geometry, scale, true);
          const scores = cpuScore.scoreBlocks(query, key, order, geometry, scale, true, true);
          const blockLists = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.4, true);
          const plan = {keyIndices: order.keyIndices, blockLists};
          const expected = cpuAttend.attend(query, key, value, geometry, scale, true, plan);
          const actual = await stages.attend(inputs, plan, {geometry, scale, causal: true});
          expect(relativeL1(actual, expected)).to.be.below(1e-5);
        });

        for (const causal of [true, false]) {
          it(`attend without a plan: causal ${causal}`, async () => {
            const whole = {...geometry, segmentSize: geometry.blockSize};
            const expected = cpuAttend.attend(query, key, value, whole, scale, causal);
            const actual = await stages.attend(inputs, undefined, {geometry: whole, scale, causal});
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });
        }
      });
    }

    it('sorts equal scores by index, and puts NaN somewhere without losing a key', async () => {
      const geometry = geometryOf(cases[0]);
      const {batch, heads, permutedLength} = geometry;
      const scores = Float32Array.from({length: batch * heads * permutedLength}, (_, i) =>
        i % 32 === 5 ? NaN : Math.floor((i % 32) / 8) / 100,
      );
      const first = Array.from(await stages.sortKeys(scores, geometry)).slice(0, 32);
      expect([...first].sort((a, b) => a - b)).to.deep.equal(Array.from({length: 32}, (_, i) => i));
      const numbers = first.filter((key) => key !== 5);
      const expected = [24, 16, 8, 0].flatMap((start) => Array.from({length: 8}, (_, i) => start + i));
      expect(numbers).to.deep.equal(expected.filter((key) => key !== 5));
    });

    it('chooses probe rows of equal distances by index, and again the first where a block has too few', async () => {
      // Whole numbers, and blocks of 8 and 4 rows: distances are exact, and many are equal.
      const inputs = randomInputs({heads: 2, length: 60, headDim: 6}, 36);
      inputs.query.forEach((x, i) => (inputs.query[i] = Math.round(x)));
      const geometry = geometryOf({inputs, sizes: {blockSize: 8, segmentSize: 8}});
      const expected = cpuProbe.chooseProbeRows(inputs.query, geometry, 5);
      expect(Array.from(expected.subarray(35, 40))).to.satisfy((rows: number[]) => rows[4] === rows[0]);
      expect(Array.from(await stages.chooseProbeRows(inputs, geometry, 5))).to.deep.equal(Array.from(expected));
    });

    it('counts the own segment as kept, but not before the first block, and keeps everything where scores are NaN', async () => {
      const geometry = geometryOf({
        inputs: randomInputs({length: 64, headDim: 8}, 34),
        sizes: {blockSize: 8, segmentSize: 8},
      });
      const scores = new Float32Array(64);
      scores.set([0.1, 0.3, 0.1, 0.1], 4 * 8);
      scores.set([0.1, 0.1, 0.1, 0.5, 0.1], 5 * 8);
      scores.set([NaN, NaN, NaN, NaN, NaN, NaN], 6 * 8);
      const identity = Int32Array.from({length: 64}, (_, i) => i);
      const options = {geometry, scale, causal: true, threshold: 0.65, ownCounts: true};
      const {blockLists} = await stages.selectBlocks(scores, identity, options);
      const row = (i: number) => Array.from({length: blockLists[i * 9]}, (_, j) => blockLists[i * 9 + 1 + j]);
      expect(row(4), '0.4 for the own segment, 0.3').to.deep.equal([0, 1, 4]);
      expect(row(5), '0.1 for the own segment, 0.5, 0.1').to.deep.equal([0, 3, 5]);
      expect(row(6)).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
      const own = await stages.selectBlocks(scores, identity, {...options, threshold: 0.3});
      expect(own.blockLists[4 * 9], 'sink, highest score, own').to.equal(3);
    });

    it('selects equal scores by index, and everything where scores are zero or NaN', async () => {
      const inputs = randomInputs({length: 64, headDim: 8}, 34);
      const geometry = geometryOf({inputs, sizes: {blockSize: 8, segmentSize: 8}});
      const scores = new Float32Array(64);
      scores.fill(0.25, 4 * 8, 4 * 8 + 4);
      scores.fill(NaN, 6 * 8, 6 * 8 + 6);
      const identity = Int32Array.from({length: 64}, (_, i) => i);
      const options = {geometry, scale, causal: true, threshold: 0.5};
      const {blockLists} = await stages.selectBlocks(scores, identity, options);
      const row = (i: number) => Array.from({length: blockLists[i * 9]}, (_, j) => blockLists[i * 9 + 1 + j]);
      expect(row(4)).to.deep.equal([0, 1, 4]);
      expect(row(5)).to.deep.equal([0, 1, 2, 3, 4, 5]);
      expect(row(6)).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    });
  });
}
