import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {BlockGeometry} from '../../src/attention/block_geometry';
import {blockGeometry} from '../../src/attention/block_geometry';
import * as cpuAttend from '../../src/kernels/cpu/attend/attend';
import * as cpuMask from '../../src/kernels/cpu/select/block_mask';
import * as cpuPermute from '../../src/kernels/cpu/permute/permute';
import * as cpuSampled from '../../src/kernels/cpu/select/sampled_mass';
import * as cpuScore from '../../src/kernels/cpu/select/score_blocks';
import * as cpuSelect from '../../src/kernels/cpu/select/select_blocks';
import {leastScore} from '../../src/attention/sampled_estimate';
import {testBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {Inputs} from '../reference/attention';
import {randomInputs} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';
import type {StageRunner} from './stage_runner';
import {webglStages} from './webgl/stages';
import {webgpuStages} from './webgpu/stages';

interface Runner {
  name: string;
  backend: string;
  /** Of small pieces every case has many: there it is neither the long case nor the forms, which are in webgl/forms.test.ts. */
  smallPieces?: boolean;
  open: () => StageRunner;
}
const runners: Runner[] = [
  {name: 'webgpu', backend: 'webgpu', open: () => webgpuStages(activeBackend() as WebGPUBackend)},
  {name: 'webgl', backend: 'webgl', open: () => webglStages(activeBackend() as MathBackendWebGL)},
  {
    // Little scratch: one head and few groups at a time, one block a round. Few fetches: a draw for every line.
    name: 'webgl, in small pieces',
    backend: 'webgl',
    smallPieces: true,
    open: () => webglStages(activeBackend() as MathBackendWebGL, {scratchTexels: 2 ** 9, fetchesPerDraw: 2 ** 10}),
  },
];

interface Case {
  name: string;
  inputs: Inputs;
  /** Key blocks are as long as query blocks where nothing else is said. */
  sizes: {blockSize: number; keyBlockSize?: number; segmentSize: number; queryOffset?: number};
  /** Whether queries, keys or values are of other lengths or dims than the others, or padded. */
  isForm?: boolean;
  isLong?: boolean;
  keyLengths?: Int32Array;
}
// Few head dims: each is another set of shaders, slow to compile in software.
const cases: Case[] = [
  {
    name: 'grouped heads, partial block and segment',
    inputs: randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 16}, 31),
    sizes: {blockSize: 16, keyBlockSize: 8, segmentSize: 32},
  },
  {
    // Blocks of 24 are cut into tiles of 16 queries and 32 keys: neither may reach into the next block.
    name: 'blocks that are no multiple of a tile',
    inputs: randomInputs({heads: 2, keyValueHeads: 1, length: 150, headDim: 16}, 33),
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
    inputs: randomInputs({heads: 1, length: 1100, headDim: 10}, 32),
    sizes: {blockSize: 8, segmentSize: 320},
    isLong: true,
  },
  {
    // Segments end inside a block of queries.
    name: 'segments that end inside a block of queries',
    inputs: randomInputs({heads: 2, keyValueHeads: 1, length: 110, headDim: 16}, 41),
    sizes: {blockSize: 40, keyBlockSize: 24, segmentSize: 24},
  },
  {
    name: 'a chunk whose blocks reach over segments, with keys after it',
    inputs: randomInputs({heads: 4, keyValueHeads: 2, length: 50, keyLength: 150, headDim: 16, valueDim: 24}, 36),
    sizes: {blockSize: 8, keyBlockSize: 4, segmentSize: 16, queryOffset: 75},
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
    sizes: {blockSize: 8, keyBlockSize: 16, segmentSize: 16},
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
    sizes: {blockSize: 4, keyBlockSize: 16, segmentSize: 32, queryOffset: 620},
    isForm: true,
  },
];

const scale = 0.3;

function geometryOf({inputs, sizes}: Pick<Case, 'inputs' | 'sizes'>): BlockGeometry {
  const info = (shape: number[]): TensorInfo => ({shape, dtype: 'float32', dataId: {}});
  const cut = {keyBlockSize: sizes.blockSize, ...sizes};
  return blockGeometry(info(inputs.queryShape), info(inputs.keyShape), cut, info(inputs.valueShape));
}

const estimates = ['sampled', 'pooled'] as const;
type Estimate = (typeof estimates)[number];
/** Thresholds that keep some of the blocks. */
const thresholds: Record<Estimate, number> = {sampled: 0.85, pooled: 0.613};

/** Each stage on its own: the GPU's stage gets what the CPU stages before it gave. */
for (const {name, backend, smallPieces, open} of runners.filter((runner) => testBackends().includes(runner.backend))) {
  describe(`stages against the CPU stages of the same name [${name}]`, function () {
    this.timeout(300_000);
    let stages: StageRunner;
    before(async () => {
      await setBackend(backend);
      stages = open();
    });

    for (const testCase of cases.filter(({isForm, isLong}) => !smallPieces || (!isForm && !isLong))) {
      describe(testCase.name, () => {
        const {inputs, keyLengths} = testCase;
        const geometry = geometryOf(testCase);
        const takesCausal = geometry.queryLength <= geometry.keyLength;

        const callOf = (causal: boolean) => cpuCall(inputs, {geometry, scale, causal, keyLengths});
        const orderOf = (causal: boolean, estimate: Estimate) =>
          cpuPermute.permute(callOf(causal), {permute: true, estimate});
        const scoresOf = (keyIndices: Int32Array, causal: boolean) => cpuScore.scoreBlocks(callOf(causal), keyIndices);

        for (const estimate of estimates) {
          it(`permute: ${estimate}`, async () => {
            const forms = takesCausal ? [true, false] : [false];
            for (const causal of keyLengths || estimate === 'sampled' ? forms : [takesCausal]) {
              const expected = orderOf(causal, estimate);
              const actual = await stages.permute(inputs, {geometry, scale, causal, keyLengths, estimate});
              expect(relativeL1(actual.keyScores, expected.keyScores)).to.be.below(1e-5);
              expect(Array.from(actual.keyIndices)).to.deep.equal(Array.from(expected.keyIndices));
            }
          });
        }

        for (const causal of takesCausal ? [true, false] : [false]) {
          it(`score blocks, and their selection: pooled, causal ${causal}`, async () => {
            const {keyIndices} = orderOf(causal, 'pooled');
            const expected = scoresOf(keyIndices, causal);
            const actual = await stages.scoreBlocks(inputs, keyIndices, {geometry, scale, causal, keyLengths});
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
            await expectSelection(Float32Array.from(expected), keyIndices, causal, 'pooled');
          });

          it(`score blocks, and their selection: sampled, causal ${causal}`, async () => {
            const {keyIndices} = orderOf(causal, 'sampled');
            const mass = cpuSampled.sampledMass(callOf(causal), keyIndices);
            const scores = cpuSampled.sampledScores(mass);
            const actual = await stages.sampledScores(inputs, keyIndices, {geometry, scale, causal, keyLengths});
            expect(relativeL1(actual.scores, scores), 'scores').to.be.below(1e-5);
            expect(relativeL1(actual.means, mass.means), 'means').to.be.below(1e-5);
            await expectSelection(Float32Array.from(scores), keyIndices, causal, 'sampled');
          });
        }

        async function expectSelection(
          scores: Float32Array,
          keyIndices: Int32Array,
          causal: boolean,
          estimate: Estimate,
        ): Promise<void> {
          const {keyBlocks} = geometry;
          const rule = {threshold: thresholds[estimate], estimate};
          const expected = cpuSelect.selectBlocks({geometry, causal}, rule, scores, keyIndices);
          const selected = await stages.selectBlocks(scores, keyIndices, {geometry, scale, causal, ...rule});
          const {blockLists, blockMask, listsOfMask = blockLists} = selected;
          for (let start = 0; start < expected.length; start += keyBlocks + 1) {
            const row = start / (keyBlocks + 1);
            const list = (x: ArrayLike<number>) => Array.from({length: x[start] + 1}, (_, i) => x[start + i]);
            expect(list(blockLists), `row ${row}`).to.deep.equal(list(expected));
            expect(list(listsOfMask), `row ${row} of the mask`).to.deep.equal(list(expected));
          }
          expect(Array.from(blockMask)).to.deep.equal(Array.from(cpuMask.blockMask(expected, geometry)));
        }

        for (const causal of takesCausal ? [true, false] : [false]) {
          it(`attend: causal ${causal}`, async () => {
            const {keyIndices} = orderOf(causal, 'pooled');
            const rule = {threshold: 0.4, estimate: 'pooled'} as const;
            const scores = scoresOf(keyIndices, causal);
            const plan = {keyIndices, blockLists: cpuSelect.selectBlocks({geometry, causal}, rule, scores, keyIndices)};
            const expected = cpuAttend.attend(callOf(causal), plan);
            const actual = await stages.attend(inputs, plan, {geometry, scale, causal, keyLengths});
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });
        }

        for (const causal of takesCausal ? [true, false] : [false]) {
          it(`attend without a plan: causal ${causal}`, async () => {
            const whole = {...geometry, segmentSize: geometry.blockSize};
            const expected = cpuAttend.attend({...callOf(causal), geometry: whole});
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

    it('keeps what reaches the least score of its row, and what is NaN', async () => {
      const inputs = randomInputs({length: 64, headDim: 8}, 34);
      const geometry = geometryOf({inputs, sizes: {blockSize: 8, segmentSize: 8}});
      const rule = {threshold: 0.9, estimate: 'sampled'} as const;
      const scores = Float32Array.from({length: 64}, (_, i) => {
        const [row, block] = [Math.floor(i / 8), i % 8];
        const factor = row === 6 ? NaN : block % 2 === 0 ? 0.999 : 1.001;
        return block < row ? factor * leastScore(geometry, true, rule.threshold, row) : 0;
      });
      const identity = Int32Array.from({length: 64}, (_, i) => i);
      const {blockLists} = await stages.selectBlocks(scores, identity, {geometry, scale, causal: true, ...rule});
      const rows = Array.from({length: 8}, (_, row) =>
        Array.from({length: blockLists[row * 9]}, (_, i) => blockLists[row * 9 + 1 + i]),
      );
      const odd = [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3, 4], [0, 1, 3, 5]];
      expect(rows).to.deep.equal([...odd, [0, 1, 2, 3, 4, 5, 6], [0, 1, 3, 5, 7]]);
    });

    it('selects equal scores by index, and everything where scores are zero or NaN, by the pooled estimate', async () => {
      const inputs = randomInputs({length: 64, headDim: 8}, 34);
      const geometry = geometryOf({inputs, sizes: {blockSize: 8, segmentSize: 8}});
      const scores = new Float32Array(64);
      scores.fill(0.25, 4 * 8, 4 * 8 + 4);
      scores.fill(NaN, 6 * 8, 6 * 8 + 6);
      const identity = Int32Array.from({length: 64}, (_, i) => i);
      const options = {geometry, scale, causal: true, threshold: 0.5, estimate: 'pooled' as const};
      const {blockLists} = await stages.selectBlocks(scores, identity, options);
      const row = (i: number) => Array.from({length: blockLists[i * 9]}, (_, j) => blockLists[i * 9 + 1 + j]);
      expect(row(4)).to.deep.equal([0, 1, 4]);
      expect(row(5)).to.deep.equal([0, 1, 2, 3, 4, 5]);
      expect(row(6)).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    });
  });
}
