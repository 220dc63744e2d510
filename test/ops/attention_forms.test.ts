import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, memory, reshape, setBackend, tensor1d, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {flashAttention, pbsAttention} from '../../src/index';
import type {Inputs} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import type {OracleOptions} from '../reference/attention_oracle';
import {attentionOracle, oracleGradients} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {flashOptions} from '../reference/random_forms';
import {describeAllBackends, describeOnCPU, fixture} from '../setup/environment';

const names = ['query', 'key', 'value'] as const;
type Attention = (...x: Tensor4D[]) => Tensor4D;

/** Transformers' attention: `attention_forms.py`. */
interface FormsFixture extends Record<'query' | 'key' | 'value' | 'dy', number[]> {
  shapes: Record<(typeof names)[number], [number, number, number, number]>;
  cases: Record<string, {options: OracleOptions; output: number[]; gradients: Record<string, number[]>}>;
}

async function readFixture(): Promise<FormsFixture & {inputs: Inputs}> {
  const bytes = await fixture('test/golden/attention_forms.json');
  const made = JSON.parse(new TextDecoder().decode(bytes)) as FormsFixture;
  const [query, key, value] = names.map((name) => Float32Array.from(made[name]));
  const {query: queryShape, key: keyShape, value: valueShape} = made.shapes;
  return {...made, inputs: {query, key, value, queryShape, keyShape, valueShape}};
}

describeOnCPU('oracle of forms', () => {
  it('is what transformers computes, with its gradients', async () => {
    const {inputs, dy, cases: made} = await readFixture();
    for (const [name, {options, output, gradients}] of Object.entries(made)) {
      // Inputs are read as float32.
      expect(difference(attentionOracle(inputs, options).output, output), name).to.be.below(1e-7);
      const ours = oracleGradients(inputs, options, Float32Array.from(dy));
      names.forEach((of) => expect(difference(ours[of], gradients[of]), `${name}: ${of}`).to.be.below(1e-6));
    }
  });
});

describeAllBackends('forms of scores', function (backend) {
  // Where GPUs are software, compiling takes longest.
  const isCPU = backend === 'cpu';
  const tolerance = isCPU ? 1e-6 : 1e-5;

  before(() => setBackend(backend));

  it('are those of transformers: gpt-oss, Gemma 2, Mistral, BLOOM', async () => {
    const {inputs, dy, cases: made} = await readFixture();
    for (const [name, {options, output, gradients}] of Object.entries(made)) {
      const [q, k, v] = tensors(inputs);
      const given = flashOptions(options);
      expect(difference(await flashAttention(q, k, v, given).data(), output), name).to.be.below(tolerance);
      if (!isCPU) {
        continue;
      }
      const found = grads4D((...x) => flashAttention(x[0], x[1], x[2], given))(
        [q, k, v],
        tensor4d(dy, inputs.queryShape),
      );
      for (const [i, of] of names.entries()) {
        expect(difference(await found[i].data(), gradients[of]), `${name}: ${of}`).to.be.below(2 * tolerance);
      }
    }
  });

  it('give the same whatever they are given as, and leave no tensors', async () => {
    const inputs = randomInputs({heads: 2, length: 9, headDim: 8}, 5);
    const [q, k, v] = tensors(inputs);
    const [alibiSlopes, sinks] = [
      [0.5, 0.25],
      [1, -1],
    ];
    const before = memory().numTensors;
    const byNumbers = flashAttention(q, k, v, {alibiSlopes, sinks});
    const byTensors = [tensor1d(alibiSlopes), tensor1d(sinks)];
    const same = flashAttention(q, k, v, {alibiSlopes: byTensors[0], sinks: byTensors[1]});
    expect(Array.from(await same.data())).to.deep.equal(Array.from(await byNumbers.data()));
    dispose([byNumbers, same, ...byTensors]);
    expect(memory().numTensors).to.equal(before);
  });

  it('of block-sparse attention of threshold 1 are those of exact attention under a mask of integers', async () => {
    if (!isCPU) return;
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 40, headDim: 8}, 7)).map((x) => reshape(x, [2, 40, 8]));
    const mask = tensor3d(
      Array.from({length: 1600}, (_, i) => Number(i % 3 > 0)),
      [1, 40, 40],
      'int32',
    );
    const sizes = {blockSize: 8, keyBlockSize: 4, segmentSize: 8, auto: false};
    const [whole, exact] = [pbsAttention(q, k, v, {...sizes, threshold: 1, mask}), flashAttention(q, k, v, {mask})];
    expect(whole.shape).to.deep.equal([2, 40, 8]);
    expect(Array.from(await whole.data())).to.deep.equal(Array.from(await exact.data()));
    dispose([q, k, v, mask, whole, exact]);
  });

  it('leave rows that see nothing at zeros, with sinks too', async () => {
    const inputs = randomInputs({batch: 2, length: 6, keyLength: 9, headDim: 8}, 6);
    const [q, k, v] = tensors(inputs);
    const options = {keyLengths: [9, 4], window: 2, sinks: [2], softCap: 5, alibiSlopes: [0.5]};
    const output = await flashAttention(q, k, v, options).data();
    // Row i stands at 3 + i; of the second entry's keys, those below 4, only the first two rows see any.
    const empty = output.slice(6 * 8 + 2 * 8);
    expect(Array.from(empty).every((x) => x === 0)).to.equal(true);
    expect(Array.from(output.slice(0, 6 * 8 + 2 * 8)).every((x) => x !== 0)).to.equal(true);
  });

  it('read no tile of keys outside of a window, forward and backward', async () => {
    // Rows stand from 400 on and see keys from 381 on: what is a tile away would leave its NaN in sums.
    const inputs = randomInputs({length: 16, keyLength: 440, headDim: 8}, 8);
    const farFromWindow = (filler: number) => (x: number, i: number) => (i < 256 * 8 ? filler : x);
    const options = {window: 20, queryOffset: 400};
    const [zeros, nans] = [0, NaN].map((filler) => ({
      ...inputs,
      key: inputs.key.map(farFromWindow(filler)),
      value: inputs.value.map(farFromWindow(filler)),
    }));
    for (const causal of [true, false]) {
      const [q, k, v] = tensors(nans);
      const output = await flashAttention(q, k, v, {...options, causal}).data();
      expect(difference(output, attentionOracle(zeros, {...options, causal}).output)).to.be.below(tolerance);
      const dy = randomInputs({length: 16, headDim: 8}, 9).value;
      const expected = oracleGradients(zeros, {...options, causal}, dy);
      const attention: Attention = (...x) => flashAttention(x[0], x[1], x[2], {...options, causal});
      const found = grads4D(attention)([q, k, v], tensor4d(dy, inputs.queryShape));
      for (const [i, of] of names.entries()) {
        expect(difference(await found[i].data(), expected[of]), of).to.be.below(2 * tolerance);
      }
    }
  });
});
