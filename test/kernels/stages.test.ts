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

interface Runner {
  name: string;
  backend: string;
  /** Whether every form of attention is tested; those of WebGL in small pieces are in webgl_forms.test.ts. */
  takesForms?: boolean;
  open: () => StageRunner;
}
const runners: Runner[] = [
  {name: 'webgpu', backend: 'webgpu', takesForms: true, open: () => webgpuStages(activeBackend() as WebGPUBackend)},
  {name: 'webgl', backend: 'webgl', takesForms: true, open: () => webglStages(activeBackend() as MathBackendWebGL)},
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
  sizes: {blockSize: number; segmentSize: number; queryOffset?: number};
  /** Whether queries, keys or values are of other lengths or dims than the others, or padded. */
  isForm?: boolean;
  keyLengths?: Int32Array;
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
  {
    name: 'a chunk whose blocks reach over segments, with keys after it',
    inputs: randomInputs({heads: 4, keyValueHeads: 2, length: 50, keyLength: 150, headDim: 16, valueDim: 24}, 36),
    sizes: {blockSize: 8, segmentSize: 16, queryOffset: 75},
    isForm: true,
  },
  {
    name: 'more queries than keys where there is no causal mask',
    inputs: randomInputs({batch: 2, heads: 2, length: 90, keyLength: 50, headDim: 16, valueDim: 6}, 37),
    sizes: {blockSize: 8, segmentSize: 16, queryOffset: 0},
    isForm: true,
  },
  {
    name: 'padded entries, one of padding alone',
    inputs: randomInputs({batch: 4, heads: 2, keyValueHeads: 1, length: 70, headDim: 16}, 38),
    sizes: {blockSize: 8, segmentSize: 16},
    isForm: true,
    keyLengths: Int32Array.from([70, 43, 5, 0]),
  },
  {
    name: 'a padded chunk, one entry without a row that is none',
    inputs: randomInputs({batch: 3, heads: 2, length: 20, keyLength: 80, headDim: 16}, 39),
    sizes: {blockSize: 8, segmentSize: 16},
    isForm: true,
    keyLengths: Int32Array.from([90, 67, 21]),
  },
  {
    // Few rows over more than 512 keys: WebGPU cuts the keys into chunks.
    name: 'a token over a cache',
    inputs: randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 1, keyLength: 1100, headDim: 16}, 40),
    sizes: {blockSize: 16, segmentSize: 32},
    isForm: true,
    keyLengths: Int32Array.from([1100, 530]),
  },
  {
    name: 'some tokens over a cache',
    inputs: randomInputs({heads: 6, keyValueHeads: 2, length: 7, keyLength: 700, headDim: 10, valueDim: 20}, 42),
    sizes: {blockSize: 4, segmentSize: 32, queryOffset: 620},
    isForm: true,
  },
];

const scale = 0.3;

function geometryOf({inputs, sizes}: Pick<Case, 'inputs' | 'sizes'>): BlockGeometry {
  const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  return blockGeometry(info(inputs.queryShape), info(inputs.keyShape), sizes, info(inputs.valueShape));
}

/** Each stage on its own: the GPU's stage gets what the CPU stages before it gave. */
for (const {name, backend, takesForms, open} of runners.filter((runner) => testBackends().includes(runner.backend))) {
  describe(`stages against the CPU stages of the same name [${name}]`, function () {
    this.timeout(300_000);
    let stages: StageRunner;
    before(async () => {
      await setBackend(backend);
      stages = open();
    });

    for (const testCase of cases.filter(({isForm}) => takesForms || !isForm)) {
      describe(testCase.name, () => {
        const {inputs, keyLengths} = testCase;
        const {query, key, value} = inputs;
        const geometry = geometryOf(testCase);
        const takesCausal = geometry.queryLength <= geometry.keyLength;

        const cpuScores = (order: cpuPermute.KeyOrder, causal: boolean, exactLastBlock: boolean) =>
          cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock, keyLengths);

        it('permute', async () => {
          for (const causal of keyLengths ? [true, false] : [takesCausal]) {
            const expected = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
            const actual = await stages.permute(inputs, {geometry, scale, causal, keyLengths});
            expect(relativeL1(actual.keyScores, expected.keyScores)).to.be.below(1e-5);
            expect(Array.from(actual.keyIndices)).to.deep.equal(Array.from(expected.keyIndices));
          }
        });

        for (const [causal, exactLastBlock] of [
          [true, false],
          [true, true],
          [false, true],
        ].filter(([causal]) => takesCausal || !causal)) {
          it(`score blocks: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
            const options = {geometry, scale, causal, exactLastBlock, keyLengths};
            const expected = cpuScores(order, causal, exactLastBlock);
            const actual = await stages.scoreBlocks(inputs, order, options);
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });

          it(`select blocks and mask: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
            const scores = Float32Array.from(cpuScores(order, causal, exactLastBlock));
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

        for (const causal of takesCausal ? [true, false] : [false]) {
          // 5 rows are no whole group of four, and more than some blocks have.
          it(`probed scores, and their selection: causal ${causal}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
            const options = {geometry, scale, causal, keyLengths, exactLastBlock: true, probeRows: 5};
            const expected = cpuProbed.probedScores(query, key, order, geometry, scale, causal, true, 5, keyLengths);
            expect(relativeL1(await stages.probedScores(inputs, order, options), expected)).to.be.below(1e-5);
            await expectSelection(Float32Array.from(expected), order.keyIndices, causal, true);
          });

          it(`attend with the remainder: causal ${causal}`, async () => {
            const order = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
            const scores = cpuScores(order, causal, true);
            const blockLists = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.4, causal);
            const plan = {keyIndices: order.keyIndices, blockLists};
            const skipped = cpuRemainder.attendRemainder(query, key, value, geometry, scale, causal, plan, keyLengths);
            const hidden = {keyLengths};
            const expected = cpuAttend.attend(query, key, value, geometry, scale, causal, plan, hidden, skipped);
            const actual = await stages.attend(inputs, plan, {geometry, scale, causal, keyLengths, remainder: true});
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
          const selected = await stages.selectBlocks(scores, keyIndices, options);
          const {blockLists, blockMask, listsOfMask = blockLists} = selected;
          for (let start = 0; start < expected.length; start += keyBlocks + 1) {
            const row = start / (keyBlocks + 1);
            const list = (x: ArrayLike<number>) => Array.from({length: x[start] + 1}, (_, i) => x[start + i]);
            expect(list(blockLists), `row ${row}`).to.deep.equal(list(expected));
            expect(list(listsOfMask), `row ${row} of the mask`).to.deep.equal(list(expected));
          }
          expect(Array.from(blockMask)).to.deep.equal(Array.from(cpuMask.blockMask(expected, geometry)));
        }

        it('attend', async () => {
          const causal = takesCausal;
          const order = cpuPermute.permute(query, key, geometry, scale, true, causal, keyLengths);
          const scores = cpuScores(order, causal, true);
          const blockLists = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.4, causal);
          const plan = {keyIndices: order.keyIndices, blockLists};
          const expected = cpuAttend.attend(query, key, value, geometry, scale, causal, plan, {keyLengths});
          const actual = await stages.attend(inputs, plan, {geometry, scale, causal, keyLengths});
          expect(relativeL1(actual, expected)).to.be.below(1e-5);
        });

        for (const causal of takesCausal ? [true, false] : [false]) {
          it(`attend without a plan: causal ${causal}`, async () => {
            const whole = {...geometry, segmentSize: geometry.blockSize};
            const expected = cpuAttend.attend(query, key, value, whole, scale, causal, undefined, {keyLengths});
            const actual = await stages.attend(inputs, undefined, {geometry: whole, scale, causal, keyLengths});
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
