import type {Rank, Tensor4D} from '@tensorflow/tfjs-core';
import {memory, setBackend, tensor, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {pbsAttention, pbsAttentionPlan} from '../../src/index';
import {varianceCap} from '../../src/kernels/block_estimate';
import {grads4D} from '../attention_gradients';
import {describeOnCPU, testBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import {randomInputs} from '../reference';

type Values = Record<'query' | 'key' | 'value' | 'dy', Float64Array>;
const names = ['query', 'key', 'value'] as const;

/** Attention of a plan whose skipped blocks count by their summaries: some rows of queries, values of another head dim. */
interface Case {
  causal: boolean;
  queryLength: number;
  keyLength: number;
  headDim: number;
  valueDim: number;
  blockSize: number;
  keyLengths?: number[];
}
const [batch, heads, keyValueHeads] = [2, 2, 1];
const scaleOf = ({headDim}: Case) => 2 / Math.sqrt(headDim);

const shapesOf = ({queryLength, keyLength, headDim, valueDim}: Case): Record<keyof Values, number[]> => ({
  query: [batch, heads, queryLength, headDim],
  key: [batch, keyValueHeads, keyLength, headDim],
  value: [batch, keyValueHeads, keyLength, valueDim],
  dy: [batch, heads, queryLength, valueDim],
});

function valuesOf(test: Case): Values {
  const values = Object.entries(shapesOf(test)).map(([name, [batch, heads, length, headDim]], i) => [
    name,
    Float64Array.from(randomInputs({batch, heads, length, headDim}, 91 + i).key),
  ]);
  return Object.fromEntries(values) as Values;
}

const optionsOf = (test: Case): PBSAttentionOptions => ({
  blockSize: test.blockSize,
  segmentSize: 2 * test.blockSize,
  threshold: 0.3,
  causal: test.causal,
  scale: scaleOf(test),
  remainder: true,
  auto: false,
  ...(test.keyLengths && {keyLengths: test.keyLengths}),
});

interface Plan {
  keyIndices: Int32Array;
  blockMask: Uint8Array;
}

const tensorOf = (name: keyof Values, test: Case, values: Values) =>
  tensor<Rank.R4>(Float32Array.from(values[name]), shapesOf(test)[name] as Tensor4D['shape']);

async function planOnCPU(test: Case, values: Values): Promise<Plan> {
  await setBackend('cpu');
  const [q, k] = [tensorOf('query', test, values), tensorOf('key', test, values)];
  const plan = pbsAttentionPlan(q, k, {...optionsOf(test), remainder: undefined});
  const [keyIndices, blockMask] = await Promise.all([plan.keyIndices.data(), plan.blockMask.data()]);
  [q, k, plan.keyIndices, plan.blockMask].forEach((x) => x.dispose());
  return {keyIndices: keyIndices as Int32Array, blockMask: blockMask as Uint8Array};
}

/** Gradients on a backend over a plan that is given; everything is freed. */
async function gradientsBy(plan: Plan, backend: string, test: Case, values: Values): Promise<ArrayLike<number>[]> {
  await setBackend(backend);
  const before = memory().numTensors;
  const [q, k, v, dy] = [...names, 'dy' as const].map((name) => tensorOf(name, test, values));
  const [queryBlocks, keyBlocks] = [test.queryLength, test.keyLength].map((n) => Math.ceil(n / test.blockSize));
  const tensors = {
    keyIndices: tensor3d(plan.keyIndices, [batch, heads, test.keyLength], 'int32'),
    blockMask: tensor4d(plan.blockMask, [batch, heads, queryBlocks, keyBlocks], 'bool'),
  };
  const attention = (query: Tensor4D, key: Tensor4D, value: Tensor4D) =>
    pbsAttention(query, key, value, {...optionsOf(test), plan: tensors});
  const gradients = grads4D(attention)([q, k, v], dy);
  const read = await Promise.all(gradients.map((x) => x.data()));
  [q, k, v, dy, tensors.keyIndices, tensors.blockMask, ...gradients].forEach((x) => x.dispose());
  expect(memory().numTensors).to.equal(before);
  return read;
}

/**
 * Σ dy · attention in float64, by the definition in `block_estimate.ts`. Counts the scores that had their correction capped,
 * and those that had not.
 */
function lossOf(test: Case, {query, key, value, dy}: Values, plan: Plan, seen = {capped: 0, free: 0}): number {
  const {causal, queryLength, keyLength, headDim, valueDim, blockSize} = test;
  const scale = scaleOf(test);
  const [queryBlocks, keyBlocks] = [Math.ceil(queryLength / blockSize), Math.ceil(keyLength / blockSize)];
  const offset = causal ? keyLength - queryLength : 0;
  let loss = 0;
  for (let row = 0; row < batch * heads * queryLength; ++row) {
    const [head, position] = [Math.floor(row / queryLength), row % queryLength];
    const entry = Math.floor(head / heads);
    const end = test.keyLengths?.[entry] ?? keyLength;
    const queryBlock = Math.floor(position / blockSize);
    const segmentStart = Math.floor((offset + queryBlock * blockSize) / (2 * blockSize)) * 2 * blockSize;
    const q = (d: number) => scale * query[row * headDim + d];
    const dyDot = (of: (d: number) => number) => {
      let product = 0;
      for (let d = 0; d < valueDim; ++d) {
        product += dy[row * valueDim + d] * of(d);
      }
      return product;
    };
    let [weights, weighted] = [0, 0];
    const pay = (weight: number, product: number) => {
      weights += weight;
      weighted += weight * product;
    };
    for (let block = 0; block < keyBlocks; ++block) {
      const indices = plan.keyIndices.subarray(
        head * keyLength + block * blockSize,
        head * keyLength + Math.min((block + 1) * blockSize, keyLength),
      );
      const keys = [...indices].filter((index) => index < end);
      const keyAt = (index: number, d: number) => key[(entry * keyLength + index) * headDim + d];
      const valueAt = (index: number, d: number) => value[(entry * keyLength + index) * valueDim + d];
      const mean = (of: (index: number) => number) => keys.reduce((sum, index) => sum + of(index), 0) / keys.length;
      if (plan.blockMask[(head * queryBlocks + queryBlock) * keyBlocks + block]) {
        for (const index of keys.filter((index) => !causal || index <= offset + position)) {
          let score = 0;
          for (let d = 0; d < headDim; ++d) {
            score += q(d) * keyAt(index, d);
          }
          pay(
            Math.exp(score),
            dyDot((d) => valueAt(index, d)),
          );
        }
      } else if ((!causal || block * blockSize < segmentStart) && keys.length > 0) {
        let [score, correction] = [0, 0];
        for (let d = 0; d < headDim; ++d) {
          const center = mean((index) => keyAt(index, d));
          score += q(d) * center;
          correction += (q(d) ** 2 / 2) * mean((index) => (keyAt(index, d) - center) ** 2);
        }
        ++seen[correction > varianceCap ? 'capped' : 'free'];
        const weight = keys.length * Math.exp(score + Math.min(correction, varianceCap));
        pay(
          weight,
          dyDot((d) => mean((index) => valueAt(index, d))),
        );
      }
    }
    loss += weights > 0 ? weighted / weights : 0;
  }
  return loss;
}

const short = {queryLength: 10, keyLength: 22, headDim: 3, valueDim: 2, blockSize: 2};
const cases: Record<string, Case> = {
  'a chunk, causal': {...short, causal: true},
  'a chunk, causal, with key lengths': {...short, causal: true, keyLengths: [22, 13]},
  'not causal, with key lengths': {...short, causal: false, keyLengths: [17, 22]},
};

describeOnCPU('gradients of the remainder against finite differences', () => {
  for (const [name, test] of Object.entries(cases)) {
    it(name, async () => {
      const values = valuesOf(test);
      const plan = await planOnCPU(test, values);
      const seen = {capped: 0, free: 0};
      lossOf(test, values, plan, seen);
      expect(seen.capped).to.be.above(20);
      expect(seen.free).to.be.above(100);
      const actual = await gradientsBy(plan, 'cpu', test, values);
      const step = 1e-5;
      names.forEach((by, i) => {
        const variable = values[by];
        const expected = variable.map((x, at) => {
          const lossAt = (changed: number) => {
            variable[at] = changed;
            return lossOf(test, values, plan);
          };
          const difference = (lossAt(x + step) - lossAt(x - step)) / (2 * step);
          variable[at] = x;
          return difference;
        });
        expect(relativeL1(actual[i], expected), `gradient of ${by}`).to.be.below(1e-6);
      });
    });
  }
});

// Head dims that are whole vectors, and not; blocks that span workgroups of rows, or tiles of keys.
const onGPU: Record<string, Case> = {
  'not causal, with key lengths': {...cases['not causal, with key lengths'], headDim: 34},
  'a chunk with whole vectors': {
    causal: true,
    queryLength: 100,
    keyLength: 150,
    headDim: 16,
    valueDim: 8,
    blockSize: 12,
    keyLengths: [150, 121],
  },
};

for (const backend of testBackends().filter((name) => name !== 'cpu')) {
  describe(`gradients of the remainder against the CPU [${backend}]`, () => {
    for (const [name, test] of Object.entries(onGPU)) {
      it(name, async () => {
        const values = valuesOf(test);
        const plan = await planOnCPU(test, values);
        const expected = await gradientsBy(plan, 'cpu', test, values);
        const actual = await gradientsBy(plan, backend, test, values);
        names.forEach((by, i) => {
          expect(relativeL1(actual[i], expected[i]), `gradient of ${by}`).to.be.below(2e-5);
        });
      });
    }
  });
}
