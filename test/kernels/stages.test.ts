import type {TensorInfo} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {BlockGeometry} from '../../src/kernels/block_geometry';
import {blockGeometry} from '../../src/kernels/block_geometry';
import * as cpuAttend from '../../src/kernels/cpu/attend';
import * as cpuMask from '../../src/kernels/cpu/block_mask';
import * as cpuPermute from '../../src/kernels/cpu/permute';
import * as cpuScore from '../../src/kernels/cpu/score_blocks';
import * as cpuSelect from '../../src/kernels/cpu/select_blocks';
import * as gpuAttend from '../../src/kernels/webgpu/attend';
import * as gpuMask from '../../src/kernels/webgpu/block_mask';
import * as gpuPermute from '../../src/kernels/webgpu/permute';
import * as gpuScore from '../../src/kernels/webgpu/score_blocks';
import * as gpuSelect from '../../src/kernels/webgpu/select_blocks';
import {testBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import type {Inputs} from '../reference';
import {randomInputs} from '../reference';

/** Each stage on its own: the WebGPU stage gets what the CPU stages before it gave. */
if (testBackends().includes('webgpu')) {
  describe('stages against the CPU stages of the same name [webgpu]', () => {
    let gpu: WebGPUBackend;
    before(async () => {
      await setBackend('webgpu');
      gpu = activeBackend() as WebGPUBackend;
    });

    const owned: TensorInfo[] = [];
    const own = (info: TensorInfo) => (owned.push(info), info);
    const upload = (values: Float32Array | Int32Array, shape: number[]) =>
      own(gpu.makeTensorInfo(shape, values instanceof Int32Array ? 'int32' : 'float32', values));
    const read = async (info: TensorInfo) => (await gpu.read(own(info).dataId)) as Float32Array | Int32Array;
    afterEach(() => owned.splice(0).forEach(({dataId}) => gpu.disposeData(dataId)));

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
        // 128 keys are one chunk of the proxy pass, 128 threads one round of selection, 256 of the sort.
        name: 'more than one chunk, round and tile everywhere',
        inputs: randomInputs({heads: 1, length: 1400, headDim: 10}, 32),
        sizes: {blockSize: 8, segmentSize: 640},
      },
    ];
    const scale = 0.3;

    function setUp({inputs, sizes}: Case) {
      const {query, key, value, queryShape, keyShape} = inputs;
      const infos = {
        query: upload(query, queryShape),
        key: upload(key, keyShape),
        value: upload(value, keyShape),
      };
      const geometry = blockGeometry(infos.query, infos.key, sizes);
      return {...inputs, infos, geometry};
    }

    const orderShapes = ({batch, heads, length, permutedLength}: BlockGeometry) => ({
      keyScores: [batch, heads, permutedLength],
      keyIndices: [batch, heads, length],
    });

    for (const testCase of cases) {
      describe(testCase.name, () => {
        it('permute', async () => {
          const {query, key, infos, geometry} = setUp(testCase);
          const expected = cpuPermute.permute(query, key, geometry, scale, true);
          const actual = gpuPermute.permute('test', gpu, infos.query, infos.key, geometry, scale, true);
          expect(actual.keyScores.shape).to.deep.equal(orderShapes(geometry).keyScores);
          expect(relativeL1(await read(actual.keyScores), expected.keyScores)).to.be.below(1e-5);
          expect(Array.from(await read(actual.keyIndices))).to.deep.equal(Array.from(expected.keyIndices));
        });

        for (const [causal, exactLastBlock] of [
          [true, false],
          [true, true],
          [false, true],
        ]) {
          it(`score blocks: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const {query, key, infos, geometry} = setUp(testCase);
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const shapes = orderShapes(geometry);
            const gpuOrder = {
              keyScores: upload(Float32Array.from(order.keyScores), shapes.keyScores),
              keyIndices: upload(order.keyIndices, shapes.keyIndices),
            };
            const expected = cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock);
            const actual = await read(
              gpuScore.scoreBlocks(gpu, infos.query, infos.key, gpuOrder, geometry, scale, causal, exactLastBlock),
            );
            expect(relativeL1(actual, expected)).to.be.below(1e-5);
          });

          it(`select blocks and mask: causal ${causal}, exactLastBlock ${exactLastBlock}`, async () => {
            const {query, key, geometry} = setUp(testCase);
            const order = cpuPermute.permute(query, key, geometry, scale, true);
            const scores = Float32Array.from(
              cpuScore.scoreBlocks(query, key, order, geometry, scale, causal, exactLastBlock),
            );
            const {batch, heads, blocks} = geometry;
            const gpuScores = upload(scores, [batch, heads, blocks, blocks]);
            const gpuIndices = upload(order.keyIndices, orderShapes(geometry).keyIndices);
            const expected = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.613, causal);
            const lists = gpuSelect.selectBlocks(gpu, gpuScores, gpuIndices, geometry, 0.613, causal);
            const mask = await read(gpuMask.blockMask(gpu, lists));
            const actual = await read(lists);
            for (let row = 0; row < batch * heads * blocks; ++row) {
              const list = (x: ArrayLike<number>) => {
                const start = row * (blocks + 1);
                return Array.from({length: x[start] + 1}, (_, i) => x[start + i]);
              };
              expect(list(actual), `row ${row}`).to.deep.equal(list(expected));
            }
            expect(Array.from(mask)).to.deep.equal(Array.from(cpuMask.blockMask(expected, geometry)));
          });
        }

        it('attend', async () => {
          const {query, key, value, infos, geometry} = setUp(testCase);
          const {batch, heads, blocks} = geometry;
          const order = cpuPermute.permute(query, key, geometry, scale, true);
          const scores = cpuScore.scoreBlocks(query, key, order, geometry, scale, true, true);
          const blockLists = cpuSelect.selectBlocks(scores, order.keyIndices, geometry, 0.4, true);
          const plan = {keyIndices: order.keyIndices, blockLists};
          const gpuPlan = {
            keyIndices: upload(order.keyIndices, orderShapes(geometry).keyIndices),
            blockLists: upload(blockLists, [batch, heads, blocks, blocks + 1]),
          };
          const expected = cpuAttend.attend(query, key, value, geometry, scale, true, plan);
          const actual = gpuAttend.attend(
            'test',
            gpu,
            infos.query,
            infos.key,
            infos.value,
            geometry,
            {scale, causal: true, precision: 'float32'},
            gpuPlan,
          );
          expect(relativeL1(await read(actual), expected)).to.be.below(1e-5);
        });
      });
    }

    it('sorts equal scores by index, and puts NaN somewhere without losing a key', async () => {
      const {geometry} = setUp(cases[0]);
      const {batch, heads, permutedLength} = geometry;
      const scores = Float32Array.from({length: batch * heads * permutedLength}, (_, i) =>
        i % 32 === 5 ? NaN : Math.floor((i % 32) / 8) / 100,
      );
      const keyScores = upload(scores, [batch, heads, permutedLength]);
      const order = Array.from(await read(new gpuPermute.SortKeysProgram(keyScores, geometry, true).run(gpu)));
      const first = order.slice(0, 32);
      expect([...first].sort((a, b) => a - b)).to.deep.equal(Array.from({length: 32}, (_, i) => i));
      const numbers = first.filter((key) => key !== 5);
      const expected = [24, 16, 8, 0].flatMap((start) => Array.from({length: 8}, (_, i) => start + i));
      expect(numbers).to.deep.equal(expected.filter((key) => key !== 5));
    });

    it('selects equal scores by index, and everything where scores are zero or NaN', async () => {
      const inputs = randomInputs({length: 64, headDim: 8}, 34);
      const {geometry} = setUp({name: '', inputs, sizes: {blockSize: 8, segmentSize: 8}});
      const scores = new Float32Array(64);
      scores.fill(0.25, 4 * 8, 4 * 8 + 4);
      scores.fill(NaN, 6 * 8, 6 * 8 + 6);
      const identity = Int32Array.from({length: 64}, (_, i) => i);
      const lists = await read(
        gpuSelect.selectBlocks(gpu, upload(scores, [1, 1, 8, 8]), upload(identity, [1, 1, 64]), geometry, 0.5, true),
      );
      const row = (i: number) => Array.from(lists.slice(i * 9 + 1, i * 9 + 1 + lists[i * 9]));
      expect(row(4)).to.deep.equal([0, 1, 4]);
      expect(row(5)).to.deep.equal([0, 1, 2, 3, 4, 5]);
      expect(row(6)).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
    });
  });
}
