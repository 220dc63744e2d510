import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, setBackend, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import {flashAttention, pbsAttention} from '../../../src/index';
import {blockGeometry} from '../../../src/attention/block_geometry';
import * as cpuAttend from '../../../src/kernels/cpu/attend/attend';
import type {AttentionMask} from '../../../src/kernels/cpu/cpu_call';
import {blockMask} from '../../../src/kernels/cpu/select/block_mask';
import * as cpuPermute from '../../../src/kernels/cpu/permute/permute';
import * as cpuSampled from '../../../src/kernels/cpu/select/sampled_mass';
import * as cpuScore from '../../../src/kernels/cpu/select/score_blocks';
import * as cpuSelect from '../../../src/kernels/cpu/select/select_blocks';
import {attentionContext} from '../../../src/kernels/webgl/runtime/context';
import {testBackends} from '../../setup/environment';
import {relativeL1} from '../../golden/golden_cases';
import type {MaskValues, RectangularShape} from '../../reference/attention';
import {composedAttention, randomInputs, tensors} from '../../reference/attention';
import {outputGradient, pbsGradients} from '../../reference/attention_gradients';
import {cpuCall} from '../../reference/cpu_call';
import type {StageRunner} from '../stage_runner';
import {webglStages} from './stages';

if (testBackends().includes('webgl')) {
  /** Several heads and groups after one another, several rounds, several draws a program. */
  describe('forms of attention in small pieces [webgl]', () => {
    let stages: StageRunner;
    before(async () => {
      await setBackend('webgl');
      const limits = {scratchTexels: 2 ** 9, fetchesPerDraw: 2 ** 11};
      stages = webglStages(activeBackend() as MathBackendWebGL, limits);
    });

    interface Case {
      shape: RectangularShape;
      causal: boolean;
      keyLengths?: number[];
    }
    const cases: Record<string, Case> = {
      'few rows over many keys': {
        shape: {batch: 2, heads: 2, keyValueHeads: 1, length: 6, keyLength: 300, headDim: 8, valueDim: 10},
        causal: true,
        keyLengths: [300, 130],
      },
      'blocks that reach over segments': {
        shape: {heads: 2, length: 36, keyLength: 107, headDim: 8, valueDim: 10},
        causal: true,
      },
      'more rows than keys': {
        shape: {batch: 2, heads: 2, length: 66, keyLength: 46, headDim: 8, valueDim: 10},
        causal: false,
        keyLengths: [23, 46],
      },
    };
    const scale = 0.3;

    for (const [name, {shape, causal, ...padding}] of Object.entries(cases)) {
      const inputs = randomInputs(shape, 82);
      const info = (size: number[]) => ({shape: size, dtype: 'float32' as const, dataId: {}});
      const infos = [inputs.queryShape, inputs.keyShape, inputs.valueShape].map(info);
      const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32};
      const geometry = blockGeometry(infos[0], infos[1], sizes, infos[2]);
      const keyLengths = padding.keyLengths && Int32Array.from(padding.keyLengths);
      const options = {geometry, scale, causal, keyLengths};
      const call = cpuCall(inputs, options);
      const orderOf = (estimate: 'sampled' | 'pooled') => cpuPermute.permute(call, {permute: true, estimate});
      const {keyIndices} = orderOf('pooled');
      const scores = cpuScore.scoreBlocks(call, keyIndices);

      const [batch, , queryLength] = inputs.queryShape;
      const random = randomInputs({length: batch * queryLength, headDim: geometry.keyLength}, 83).query;
      const mask: AttentionMask = {
        values: random.map((x) => (x < 0 ? -Infinity : x)),
        shape: [batch, 1, queryLength, geometry.keyLength],
        dtype: 'float32',
      };

      it(`plans: ${name}`, async () => {
        for (const estimate of ['sampled', 'pooled'] as const) {
          const expected = orderOf(estimate);
          const ours = await stages.permute(inputs, {...options, estimate});
          expect(relativeL1(ours.keyScores, expected.keyScores), estimate).to.be.below(1e-5);
          expect(Array.from(ours.keyIndices), estimate).to.deep.equal(Array.from(expected.keyIndices));
        }
        expect(relativeL1(await stages.scoreBlocks(inputs, keyIndices, options), scores)).to.be.below(1e-5);
        const mass = cpuSampled.sampledMass(call, keyIndices);
        const ours = await stages.sampledScores(inputs, keyIndices, options);
        expect(relativeL1(ours.scores, cpuSampled.sampledScores(mass)), 'sampled scores').to.be.below(1e-5);
        expect(relativeL1(ours.means, mass.means), 'means').to.be.below(1e-5);
      });

      it(`attends: ${name}`, async () => {
        const rule = {threshold: 0.9, estimate: 'pooled'} as const;
        const plan = {keyIndices, blockLists: cpuSelect.selectBlocks(call, rule, scores, keyIndices)};
        const sparse = await stages.attend(inputs, plan, options);
        const expected = cpuAttend.attend(call, plan);
        expect(relativeL1(sparse, expected), 'by a plan').to.be.below(1e-5);
        const masked = await stages.attend(inputs, plan, {...options, mask});
        expect(relativeL1(masked, cpuAttend.attend({...call, mask}, plan)), 'by a plan under a mask').to.be.below(1e-5);
        const whole = {...geometry, segmentSize: 16};
        const exact = await stages.attend(inputs, undefined, {...options, geometry: whole, mask});
        const expectedExact = cpuAttend.attend({...call, geometry: whole, mask});
        expect(relativeL1(exact, expectedExact), 'under a mask').to.be.below(1e-5);
      });

      it(`attends and plans in a window, under a mask, with a soft cap, slopes and sinks: ${name}`, async () => {
        const {heads, queryOffset, keyLength} = geometry;
        const position = causal ? queryOffset : Math.max(0, keyLength - queryLength);
        const windowed = {...geometry, window: 20, queryOffset: position};
        const forms = {
          ...options,
          geometry: windowed,
          softCap: 4,
          alibiSlopes: Float32Array.from({length: heads}, (_, i) => 2 ** (-i - 4)),
          sinks: Float32Array.from({length: heads}, (_, i) => i - 0.5),
          mask,
        };
        const formed = cpuCall(inputs, forms);
        const sampled = {estimate: 'sampled', threshold: 0.9} as const;
        const {keyIndices} = cpuPermute.permute(formed, {permute: true, ...sampled});
        const mass = cpuSampled.sampledMass(formed, keyIndices);
        const scores = cpuSampled.sampledScores(mass);
        const ours = await stages.sampledScores(inputs, keyIndices, forms);
        expect(relativeL1(ours.scores, scores), 'sampled scores').to.be.below(1e-5);
        const blockLists = cpuSelect.selectBlocks(formed, sampled, scores, keyIndices);
        const lists = await stages.selectBlocks(Float32Array.from(scores), keyIndices, {...forms, ...sampled});
        expect(Array.from(lists.blockMask)).to.deep.equal(Array.from(blockMask(blockLists, windowed)));
        const plan = {keyIndices, blockLists};
        const sparse = await stages.attend(inputs, plan, forms);
        expect(relativeL1(sparse, cpuAttend.attend(formed, plan)), 'by a plan').to.be.below(1e-5);
        const whole = {
          ...windowed,
          blockSize: 16,
          keyBlockSize: 16,
          segmentSize: 16,
          keyBlocks: Math.ceil(keyLength / 16),
        };
        const exact = await stages.attend(inputs, undefined, {...forms, geometry: whole});
        expect(relativeL1(exact, cpuAttend.attend({...formed, geometry: whole})), 'exact').to.be.below(1e-5);
      });
    }
  });

  describe('padding that is no number [webgl]', () => {
    it('does not show in any row', async () => {
      await setBackend('webgl');
      const inputs = randomInputs({batch: 2, heads: 2, length: 70, headDim: 8}, 85);
      const padded = (values: Float32Array, filler: number) =>
        values.map((x, i) => (i < values.length / 2 && Math.floor(i / 8) % 70 >= 37 ? filler : x));
      const withPadding = (filler: number) =>
        tensors({...inputs, key: padded(inputs.key, filler), value: padded(inputs.value, filler)});
      const [q, k, v] = withPadding(NaN);
      const [, finiteKey, finiteValue] = withPadding(0);
      for (const causal of [true, false]) {
        const options = {causal, keyLengths: [37, 70]};
        const expected = await composedAttention(q, finiteKey, finiteValue, options).data();
        const sparse = {...options, blockSize: 8, segmentSize: 16, auto: false, threshold: 0.8};
        expect(relativeL1(await flashAttention(q, k, v, options).data(), expected), 'exact').to.be.below(1e-4);
        const clean = await pbsAttention(q, finiteKey, finiteValue, sparse).data();
        expect(Array.from(await pbsAttention(q, k, v, sparse).data()), 'sparse').to.deep.equal(Array.from(clean));
      }
    });
  });

  describe('gradients by a plan [webgl]', () => {
    it('copy values into permuted order where they read them', async () => {
      await setBackend('webgl');
      const {pool} = attentionContext('test', activeBackend() as MathBackendWebGL);
      const inputs = randomInputs({heads: 2, length: 70, headDim: 8}, 86);
      const acquire = pool.acquire.bind(pool);
      let copies = 0;
      pool.acquire = (layout, what) => {
        copies += Number(what === 'PermuteRows');
        return acquire(layout, what);
      };
      try {
        const options = {blockSize: 8, segmentSize: 16, auto: false, estimate: 'pooled'} as const;
        await pbsGradients('webgl', inputs, outputGradient(inputs, 86), options);
      } finally {
        pool.acquire = acquire;
      }
      // Keys and values for the output, keys for the statistics, both for the gradients of queries and of keys.
      expect(copies).to.equal(7);
    });
  });

  describe('decoding [webgl]', () => {
    before(() => setBackend('webgl'));

    /** Draws of this package: tfjs's own are of elements. */
    function countDraws(run: () => Tensor4D): [output: Tensor4D, draws: number] {
      const {gl} = (activeBackend() as MathBackendWebGL).gpgpu;
      const draw = gl.drawArrays.bind(gl);
      let draws = 0;
      gl.drawArrays = (...args) => {
        ++draws;
        draw(...args);
      };
      try {
        return [run(), draws];
      } finally {
        gl.drawArrays = draw;
      }
    }

    it('draws seven times for a token over 4,096 keys', async () => {
      const [q, k, v] = tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 1, keyLength: 4096, headDim: 8}, 81));
      const [output, draws] = countDraws(() => flashAttention(q, k, v));
      // Query, key and value into rows; scores, their statistics, weighted values; the output.
      expect(draws).to.equal(7);
      expect(relativeL1(await output.data(), await composedAttention(q, k, v).data())).to.be.below(1e-4);
    });

    it('reads the blocks that a plan keeps and no others, and draws ten times', async () => {
      const [blockSize, keyBlocks, keyLength, headDim] = [6, 20, 117, 10];
      const isKept = (head: number, block: number) => [0, 2 + head, 7, 18, 19].includes(block);
      const inputs = randomInputs({heads: 2, length: 3, keyLength, headDim, valueDim: 5}, 84);
      const cleared = (values: Float32Array, size: number, hidden: number) =>
        values.map((x, i) => {
          const row = Math.floor(i / size);
          return isKept(Math.floor(row / keyLength), Math.floor((row % keyLength) / blockSize)) ? x : hidden;
        });
      const [q, k, v] = tensors({
        ...inputs,
        key: cleared(inputs.key, headDim, NaN),
        value: cleared(inputs.value, 5, NaN),
      });
      const plan = {
        keyIndices: tensor3d(
          Array.from({length: 2 * keyLength}, (_, i) => i % keyLength),
          [1, 2, keyLength],
          'int32',
        ),
        blockMask: tensor4d(
          Array.from({length: 2 * keyBlocks}, (_, i) => Number(isKept(Math.floor(i / keyBlocks), i % keyBlocks))),
          [1, 2, 1, keyBlocks],
          'bool',
        ),
      };
      const [output, draws] = countDraws(() => pbsAttention(q, k, v, {blockSize, segmentSize: 12, plan}));
      // Query, mask and indices into rows, the lists; kept keys and values; scores, statistics, values; the output.
      expect(draws).to.equal(10);
      const [, finiteKey, finiteValue] = tensors({
        ...inputs,
        key: cleared(inputs.key, headDim, 0),
        value: cleared(inputs.value, 5, 0),
      });
      const values = Array.from({length: 2 * keyLength}, (_, i) =>
        Number(isKept(Math.floor(i / keyLength), Math.floor((i % keyLength) / blockSize))),
      );
      const mask: MaskValues = {values, shape: [1, 2, 1, keyLength], dtype: 'bool'};
      const expected = composedAttention(q, finiteKey, finiteValue, {mask});
      expect(relativeL1(await output.data(), await expected.data())).to.be.below(1e-4);
    });
  });
}
