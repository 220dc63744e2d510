import {abs, backend as activeBackend, memory, setBackend, tidy} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {sampleStride} from '../../src/attention/sampled_estimate';
import {gradientKernels} from '../reference/attention_gradients';
import {describeAllBackends, testBackends} from '../setup/environment';
import {randomInputs, tensors} from '../reference/attention';

const shape = {heads: 4, keyValueHeads: 2, length: 200, headDim: 16};
const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.75, auto: false};

describeAllBackends('memory', (backend) => {
  before(() => setBackend(backend));

  const runs: Record<string, () => Promise<unknown>> = {
    flashAttention: async () => {
      const [q, k, v] = tensors(randomInputs(shape, 21));
      const output = flashAttention(q, k, v);
      await output.data();
      [q, k, v, output].forEach((x) => x.dispose());
    },
    pbsAttention: async () => {
      const [q, k, v] = tensors(randomInputs(shape, 21));
      const output = pbsAttention(q, k, v, sizes);
      await output.data();
      [q, k, v, output].forEach((x) => x.dispose());
    },
    pbsAttentionPlan: async () => {
      const [q, k, v] = tensors(randomInputs(shape, 21));
      const plan = pbsAttentionPlan(q, k, sizes);
      await plan.blockMask.data();
      [q, k, v, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
    },
    'pbsAttentionPlan of exact attention': async () => {
      const [q, k, v] = tensors(randomInputs(shape, 21));
      const plan = pbsAttentionPlan(q, k, {...sizes, threshold: 1});
      await plan.blockMask.data();
      [q, k, v, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
    },
  };
  if (backend !== 'webgl') {
    runs['flashAttention of few rows over many keys'] = async () => {
      const [q, k, v] = tensors(randomInputs({...shape, length: 2, keyLength: 600}, 21));
      const output = flashAttention(q, k, v, {keyLengths: [590]});
      await output.data();
      [q, k, v, output].forEach((x) => x.dispose());
    };
    runs['pbsAttention by a plan'] = async () => {
      const [q, k, v] = tensors(randomInputs({...shape, length: 2, keyLength: 600}, 21));
      const plan = pbsAttentionPlan(q, k, sizes);
      const output = pbsAttention(q, k, v, {...sizes, plan});
      await output.data();
      [q, k, v, plan.keyIndices, plan.blockMask, output].forEach((x) => x.dispose());
    };
  }
  for (const [name, run] of Object.entries(runs)) {
    it(`${name} frees all but its output`, async () => {
      const count = () => [memory().numTensors, memory().numDataBuffers, activeBackend().numDataIds()];
      const before = count();
      await run();
      expect(count()).to.deep.equal(before);
    });
  }

  it('works inside tidy, which frees the output as well', () => {
    const before = memory().numTensors;
    tidy(() => {
      const [q, k, v] = tensors(randomInputs(shape, 21));
      pbsAttentionPlan(q, k, sizes);
      pbsAttention(q, k, v, sizes);
    });
    expect(memory().numTensors).to.equal(before);
  });
});

if (testBackends().includes('webgpu')) {
  describe('memory while running [webgpu]', () => {
    before(() => setBackend('webgpu'));

    /** Largest number of bytes that a call holds on the GPU at a time, beyond those before it; output included. */
    function peakBytes(run: () => void): number {
      const gpu = activeBackend() as WebGPUBackend;
      const bytes = () => (memory() as unknown as {numBytesInGPU: number}).numBytesInGPU;
      const start = bytes();
      let peak = 0;
      const runProgram = gpu.runWebGPUProgram;
      gpu.runWebGPUProgram = function (...args) {
        const result = runProgram.apply(this, args);
        peak = Math.max(peak, bytes() - start);
        return result;
      };
      try {
        run();
      } finally {
        gpu.runWebGPUProgram = runProgram;
      }
      return peak;
    }

    /** As the design allows: O(N) a head for indices, scores and statistics, O((N/B)²) for what is kept of pairs of blocks. */
    function allowedBytes({heads, length, headDim}: typeof shape, estimate: 'sampled' | 'pooled'): number {
      const [queryBlocks, keyBlocks] = [sizes.blockSize, sizes.keyBlockSize].map((size) => Math.ceil(length / size));
      const output = heads * length * headDim;
      const keyScoresAndIndices = 2 * heads * length;
      const scoresAndLists = heads * queryBlocks * (2 * keyBlocks + 1);
      const sampledMass = 2 * sampleStride * heads * queryBlocks * keyBlocks;
      const proxyStatistics = heads * sizes.blockSize * (2 * Math.min(64, Math.ceil(length / 128)) + 1);
      const pooled = heads * (queryBlocks + keyBlocks) * headDim;
      const ofEstimate = estimate === 'sampled' ? sampledMass : proxyStatistics + pooled;
      const uniforms = 20 * 256;
      return 4 * (output + keyScoresAndIndices + scoresAndLists + ofEstimate) + uniforms;
    }

    for (const estimate of ['sampled', 'pooled'] as const) {
      for (const length of [200, 1500]) {
        it(`stays within the sum of its parts at ${length} tokens, ${estimate}`, async () => {
          const [q, k, v] = tensors(randomInputs({...shape, length}, 22));
          flashAttention(q, k, v).dispose(); // uploads the inputs
          await q.data();
          const allowed = allowedBytes({...shape, length}, estimate);
          const peak = peakBytes(() => pbsAttention(q, k, v, {...sizes, estimate}).dispose());
          expect(peak).to.be.above(0).and.at.most(allowed);
          if (length === 1500) {
            const scoreMatrix = 4 * shape.heads * length * length;
            expect(allowed, 'the bound is far below one score matrix').to.be.below(scoreMatrix / 8);
          }
          [q, k, v].forEach((x) => x.dispose());
        });
      }
    }

    it('takes nothing but the output for exact attention', async () => {
      const [q, k, v] = tensors(randomInputs(shape, 23));
      flashAttention(q, k, v).dispose();
      await q.data();
      const peak = peakBytes(() => flashAttention(q, k, v).dispose());
      expect(peak).to.be.at.most(4 * q.size + 256);
      [q, k, v].forEach((x) => x.dispose());
    });

    it('takes for gradients what grows as the inputs do', async () => {
      const {heads, keyValueHeads, headDim} = shape;
      const allowed = (length: number) => {
        const gradients = length * headDim * (heads + 2 * keyValueHeads);
        // Of each query head's own key order, before they are added up.
        const gradientsByHead = 2 * heads * length * headDim;
        const statistics = 4 * heads * length;
        const blocks = Math.ceil(length / 16);
        const maskAndQueryLists = heads * blocks * (2 * blocks + 1);
        const uniforms = 8 * 256;
        const exact = 4 * (gradients + gradientsByHead + statistics + maskAndQueryLists) + uniforms;
        return {exact, sparse: exact + allowedBytes({...shape, length}, 'sampled')};
      };
      // Exact attention over many tokens takes its time in software.
      for (const [form, length] of [['exact', 200] as const, ['sparse', 1500] as const]) {
        const [q, k, v] = tensors(randomInputs({...shape, length}, 22));
        tidy(() => [q, k, v].forEach((x) => abs(x))); // uploads the inputs
        await q.data();
        const gradient = gradientKernels[form === 'exact' ? 'gradient of flashAttention' : 'gradient of pbsAttention'];
        const peak = peakBytes(() => gradient(q, k, v).forEach((x) => x.dispose()));
        expect(peak)
          .to.be.above(4 * length * headDim * (heads + 2 * keyValueHeads))
          .and.at.most(allowed(length)[form]);
        [q, k, v].forEach((x) => x.dispose());
      }
      expect(allowed(1500).sparse, 'the bound is far below one score matrix').to.be.below((4 * heads * 1500 ** 2) / 6);
    });

    it('frees everything when a program of a gradient fails, whichever it is', async () => {
      const gpu = activeBackend() as WebGPUBackend;
      const [q, k, v] = tensors(randomInputs(shape, 24));
      const runProgram = gpu.runWebGPUProgram;
      for (const [name, gradient] of Object.entries(gradientKernels)) {
        let failures = 0;
        for (let failed = true; failed; failures += failed ? 1 : 0) {
          const before = [memory().numTensors, gpu.numDataIds()];
          let left = failures;
          failed = false;
          gpu.runWebGPUProgram = function (...args) {
            if (left-- === 0) {
              failed = true;
              throw new Error('out of memory');
            }
            return runProgram.apply(this, args);
          };
          try {
            gradient(q, k, v).forEach((x) => x.dispose());
          } catch (error) {
            expect((error as Error).message).to.equal('out of memory');
          } finally {
            gpu.runWebGPUProgram = runProgram;
          }
          await q.data();
          expect([memory().numTensors, gpu.numDataIds()], `${name} after ${failures}`).to.deep.equal(before);
        }
        expect(failures, `programs of ${name}`).to.be.at.least(name.includes('pbs') ? 11 : 5);
      }
      [q, k, v].forEach((x) => x.dispose());
    });

    it('takes states of the softmax besides the output where the keys are split', async () => {
      const [q, k, v] = tensors(
        randomInputs({heads: 4, keyValueHeads: 2, length: 2, keyLength: 1024, headDim: 16}, 25),
      );
      flashAttention(q, k, v).dispose();
      await q.data();
      // 8 rows, chunks of 128 keys.
      const states = 8 * (1024 / 128) * (16 + 4);
      const peak = peakBytes(() => flashAttention(q, k, v).dispose());
      expect(peak)
        .to.be.above(4 * states)
        .and.at.most(4 * (q.size + states) + 2 * 256);
      [q, k, v].forEach((x) => x.dispose());
    });

    it('frees everything when a program fails, whichever it is', async () => {
      const gpu = activeBackend() as WebGPUBackend;
      const [q, k, v] = tensors(randomInputs(shape, 24));
      const runProgram = gpu.runWebGPUProgram;
      const ops = {
        pbsAttention: (estimate: 'sampled' | 'pooled') => pbsAttention(q, k, v, {...sizes, estimate}).dispose(),
        pbsAttentionPlan: (estimate: 'sampled' | 'pooled') => {
          const {keyIndices, blockMask} = pbsAttentionPlan(q, k, {...sizes, estimate});
          [keyIndices, blockMask].forEach((x) => x.dispose());
        },
      };
      for (const [name, op] of Object.entries(ops)) {
        for (const estimate of ['sampled', 'pooled'] as const) {
          let failures = 0;
          for (let failed = true; failed; failures += failed ? 1 : 0) {
            const before = [memory().numTensors, gpu.numDataIds()];
            let left = failures;
            failed = false;
            gpu.runWebGPUProgram = function (...args) {
              if (left-- === 0) {
                failed = true;
                throw new Error('out of memory');
              }
              return runProgram.apply(this, args);
            };
            try {
              op(estimate);
            } catch (error) {
              expect((error as Error).message).to.equal('out of memory');
            } finally {
              gpu.runWebGPUProgram = runProgram;
            }
            await q.data();
            expect([memory().numTensors, gpu.numDataIds()], `${name} after ${failures}`).to.deep.equal(before);
          }
          expect(failures, `programs of ${name}, ${estimate}`).to.equal(estimate === 'sampled' ? 6 : 8);
        }
      }
      [q, k, v].forEach((x) => x.dispose());
    });
  });
}
