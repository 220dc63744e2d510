import type {Tensor} from '@tensorflow/tfjs-core';
import {backend as activeBackend, dispose, memory, setBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {attentionContext} from '../../src/kernels/webgl/runtime/context';
import {flush} from '../faults/webgpu_faults';
import {randomInputs, tensors} from '../reference/attention';
import {gradientKernels} from '../reference/attention_gradients';
import {describeBackends} from '../setup/environment';

/** Calls; `SOAK=10000` is the long run. */
const calls = Number(process.env.SOAK || 192);

const sizes = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.75, auto: false};

type Attend = (...inputs: ReturnType<typeof tensors>) => Tensor[];

const ways: Attend[] = [
  (q, k, v) => [flashAttention(q, k, v)],
  (q, k, v) => [pbsAttention(q, k, v, sizes)],
  (q, k, v) => [pbsAttention(q, k, v, {...sizes, estimate: 'pooled'})],
  (q, k, v) => {
    const plan = pbsAttentionPlan(q, k, sizes);
    return [plan.keyIndices, plan.blockMask, pbsAttention(q, k, v, {...sizes, plan})];
  },
  (q, k, v) => [flashAttention(q, k, v, {keyLengths: [k.shape[2] - 1]})],
  (q, k, v) => gradientKernels['gradient of flashAttention'](q, k, v),
];

/** One after the other: each way with each shape once in a round. */
const shapes = [40, 72].flatMap((length) => [2, 4].map((heads) => ({heads, keyValueHeads: 2, length, headDim: 16})));
const round = ways.length * shapes.length;

describeBackends('many calls of mixed shapes', function (backend) {
  before(() => setBackend(backend));

  /** Whatever may grow, without what was there before. */
  function held(): number[] {
    if (backend === 'webgpu') flush(activeBackend() as WebGPUBackend);
    const {numTensors, numDataBuffers, ...others} = memory() as unknown as Record<string, number>;
    const ofGPU = ['numBytesInGPU', 'numBytesAllocatedInGPU', 'numBytesInGPUAllocated'].map(
      (name) => others[name] ?? 0,
    );
    const counts = [numTensors, numDataBuffers, activeBackend().numDataIds(), ...ofGPU];
    if (backend === 'webgl') {
      const {pool, programs} = attentionContext('test', activeBackend() as MathBackendWebGL);
      counts.push(pool.inUse, (pool as unknown as {idle: unknown[]}).idle.length, programs.size);
    }
    return counts;
  }

  /** Bytes of the heap without garbage, where that can be said. */
  function heapBytes(): number {
    const {gc, process: node} = globalThis as {gc?: () => void; process?: NodeJS.Process};
    gc?.();
    const ofPage = (performance as unknown as {memory?: {usedJSHeapSize: number}}).memory;
    return gc ? (node?.memoryUsage?.().heapUsed ?? ofPage?.usedJSHeapSize ?? 0) : 0;
  }

  it(`${calls}: nothing grows`, async function () {
    this.timeout(0);
    const call = async (i: number) => {
      const given = tensors(randomInputs(shapes[i % shapes.length], i % round));
      const outputs = ways[Math.floor(i / shapes.length) % ways.length](...given);
      // Some are read, as somebody does, some are not.
      if (i % 3 === 0) await Promise.all(outputs.map((x) => x.data()));
      dispose([...given, ...outputs]);
    };
    // Two rounds: then everything that is kept is there.
    let i = 0;
    while (i < 2 * round) await call(i++);
    const before = held();
    const heap = heapBytes();
    while (i < calls) await call(i++);
    while (i % round !== 0) await call(i++);
    expect(held()).to.deep.equal(before);
    const growth = heapBytes() - heap;
    console.log(`      ${i} calls: heap ${(growth / 2 ** 20).toFixed(1)} MiB more`);
    expect(growth, 'bytes of heap').to.be.below(10 * 2 ** 20);
  });
});
