import type {Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  gather,
  relu,
  reshape,
  reverse,
  setBackend,
  square,
  tensor1d,
  tensor4d,
  transpose,
} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {flashAttention, pbsAttention} from '../../src/index';
import {describeAllBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {Shape} from '../reference/attention';
import {composedAttention, randomInputs, repeatHeads, tensors} from '../reference/attention';

describeAllBackends('exact attention', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;

  const shapes: Array<[string, Shape]> = [
    ['one token', {length: 1, headDim: 16}],
    ['a partial tile', {length: 33, headDim: 16}],
    ['grouped heads and batch', {batch: 2, heads: 6, keyValueHeads: 2, length: 70, headDim: 16}],
    ['the smallest head dim', {length: 40, headDim: 8}],
    ['a head dim that is no multiple of 4', {heads: 2, keyValueHeads: 1, length: 45, headDim: 10}],
    ['a head dim that is no multiple of 16', {length: 50, headDim: 80}],
    ['the largest head dim', {heads: 2, length: 37, headDim: 256}],
  ];
  // On a GPU in software compiling for a large head dim takes long, and what a row sees is not its business: one of the two there.
  const masksOf = ({headDim}: Shape) => (backend === 'cpu' || headDim <= 64 ? [true, false] : [headDim === 256]);
  for (const [name, shape] of shapes) {
    for (const causal of masksOf(shape)) {
      it(`flashAttention is composed attention: ${name}, ${causal ? 'causal' : 'not causal'}`, async () => {
        const [q, k, v] = tensors(randomInputs(shape, 1));
        const ours = flashAttention(q, k, v, {causal});
        expect(ours.shape).to.deep.equal(q.shape);
        const theirs = composedAttention(q, k, v, {causal});
        expect(relativeL1(await ours.data(), await theirs.data())).to.be.below(tolerance);
      });
    }
  }

  // Rounding query, key and value to float16 makes 2e-4 to 6e-4 on these inputs, rounding the weights a little more.
  it('flashAttention in float16 is composed attention but for rounding', async () => {
    for (const [name, shape] of shapes) {
      for (const causal of masksOf(shape)) {
        const [q, k, v] = tensors(randomInputs(shape, 1));
        const ours = await flashAttention(q, k, v, {causal, precision: 'float16'}).data();
        const theirs = await composedAttention(q, k, v, {causal}).data();
        expect(relativeL1(ours, theirs), `${name}, causal ${causal}`).to.be.below(2e-3);
      }
    }
  });

  it('pbsAttention with threshold 1 is composed attention, over several segments', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 4, keyValueHeads: 2, length: 200, headDim: 16}, 2));
    const ours = pbsAttention(q, k, v, {blockSize: 16, segmentSize: 32, threshold: 1, auto: false});
    const theirs = composedAttention(q, k, v);
    expect(relativeL1(await ours.data(), await theirs.data())).to.be.below(tolerance);
  });

  it('pbsAttention of one segment is composed attention', async () => {
    const [q, k, v] = tensors(randomInputs({length: 100, headDim: 16}, 3));
    const ours = pbsAttention(q, k, v, {threshold: 0.1, auto: false});
    expect(relativeL1(await ours.data(), await composedAttention(q, k, v).data())).to.be.below(tolerance);
  });

  it('takes a scale', async () => {
    const [q, k, v] = tensors(randomInputs({length: 60, headDim: 16}, 4));
    const ours = flashAttention(q, k, v, {scale: 0.7});
    const theirs = composedAttention(q, k, v, {scale: 0.7});
    expect(relativeL1(await ours.data(), await theirs.data())).to.be.below(tolerance);
  });

  it('does not overflow where exp would', async () => {
    const inputs = randomInputs({length: 64, headDim: 16}, 5);
    const [q, k, v] = tensors({...inputs, query: inputs.query.map((x) => 60 * x)});
    const ours = flashAttention(q, k, v);
    expect(relativeL1(await ours.data(), await composedAttention(q, k, v).data())).to.be.below(tolerance);
  });

  it('does not depend on the order of keys and values', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 75, headDim: 16}, 6));
    const straight = flashAttention(q, k, v, {causal: false});
    const reversed = flashAttention(q, reverse(k, 2), reverse(v, 2), {causal: false});
    expect(relativeL1(await reversed.data(), await straight.data())).to.be.below(tolerance);
  });

  it('gives the same rows whatever comes after them', async () => {
    const inputs = randomInputs({heads: 2, length: 90, headDim: 16}, 7);
    const other = randomInputs({heads: 2, length: 90, headDim: 16}, 8);
    const seen = 41;
    const mix = (a: Float32Array, b: Float32Array) => a.map((x, i) => (Math.floor(i / 16) % 90 < seen ? x : b[i]));
    const [q, k, v] = tensors(inputs);
    const [, k2, v2] = tensors({...inputs, key: mix(inputs.key, other.key), value: mix(inputs.value, other.value)});
    const rows = Array.from({length: seen}, (_, i) => i);
    const before = gather(flashAttention(q, k, v), tensor1d(rows, 'int32'), 2);
    const after = gather(flashAttention(q, k2, v2), tensor1d(rows, 'int32'), 2);
    expect(Array.from(await after.data())).to.deep.equal(Array.from(await before.data()));
  });

  it('reads grouped heads in place as if they were repeated', async () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 50, headDim: 16}, 9));
    const grouped = flashAttention(q, k, v);
    const repeated = flashAttention(q, repeatHeads(k, 2), repeatHeads(v, 2));
    expect(Array.from(await grouped.data())).to.deep.equal(Array.from(await repeated.data()));
  });

  it('takes the results of other ops', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 40, headDim: 16}, 10));
    const [q2, k2, v2] = [add(q, q), transpose(reshape(k, [1, 40, 2, 16]), [0, 2, 1, 3]), square(v)] as Tensor4D[];
    const ours = relu(flashAttention(q2, k2, v2));
    expect(relativeL1(await ours.data(), await relu(composedAttention(q2, k2, v2)).data())).to.be.below(tolerance);
  });

  it('shows a NaN of the input instead of hiding it', async () => {
    const value = tensor4d(Array(16).fill(1), [1, 1, 2, 8]);
    const query = tensor4d(Array(16).fill(NaN), [1, 1, 2, 8]);
    const output = await flashAttention(query, value, value).data();
    expect(Array.from(output).every(Number.isNaN)).to.equal(true);
  });
});
