import type {Tensor4D} from '@tensorflow/tfjs-core';
import {concat, dispose, memory, setBackend, slice, tensor4d, tidy} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {attentionWithLogSumExp, flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import type {Inputs} from '../reference/attention';
import {maskTensor, randomInputs, tensors} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import type {OracleOptions} from '../reference/attention_oracle';
import {attentionOracle, oracleGradients} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {planMask, valuesOf} from '../reference/plan_values';
import {flashOptions} from '../reference/random_forms';
import {describeAllBackends} from '../setup/environment';

const names = ['query', 'key', 'value'] as const;
type Attention = (...x: Tensor4D[]) => Tensor4D;

/** The inputs with NaN in the keys and values before each entry's first. */
function spoiled(inputs: Inputs, keyStarts: number[]): Inputs {
  const spoil = (x: Float32Array, [, heads, length, dim]: number[]) =>
    x.map((value, i) => {
      const row = Math.floor(i / dim);
      return row % length < keyStarts[Math.floor(row / length / heads)] ? NaN : value;
    });
  return {...inputs, key: spoil(inputs.key, inputs.keyShape), value: spoil(inputs.value, inputs.valueShape)};
}

/** Keys, values and, where there are as many, rows of one entry from its first on. */
function entryOf(inputs: Inputs, entry: number, start: number): Inputs {
  const cut = (x: Float32Array, [, heads, length, dim]: number[]): [Float32Array, Inputs['queryShape']] => [
    x.filter((_, i) => Math.floor(i / dim / length / heads) === entry && Math.floor(i / dim) % length >= start),
    [1, heads, length - start, dim],
  ];
  const [query, queryShape] = cut(inputs.query, inputs.queryShape);
  const [key, keyShape] = cut(inputs.key, inputs.keyShape);
  const [value, valueShape] = cut(inputs.value, inputs.valueShape);
  return {query, key, value, queryShape, keyShape, valueShape};
}

describeAllBackends('entries of a batch with places of their own', (backend) => {
  before(() => setBackend(backend));
  const isCPU = backend === 'cpu';
  const tolerance = isCPU ? 1e-6 : 1e-5;

  /** Output, logarithms and gradients of exact attention are the oracle's. */
  async function expectOracle(clean: Inputs, options: OracleOptions, name: string, inputs = clean): Promise<void> {
    const before = memory().numTensors;
    const [q, k, v] = tensors(inputs);
    const given = flashOptions(options);
    const expected = attentionOracle(clean, options);
    const {output, logSumExp} = attentionWithLogSumExp(q, k, v, given);
    const alone = flashAttention(q, k, v, given);
    for (const x of [output, alone]) {
      expect(difference(await x.data(), expected.output), name).to.be.below(tolerance);
    }
    const logs = await logSumExp.data();
    expected.logSumExp.forEach((x, i) =>
      x === -Infinity
        ? expect(logs[i]).to.equal(x)
        : expect(logs[i], name).to.be.closeTo(x, 1e-5 * Math.max(1, Math.abs(x))),
    );
    const [batch, heads, length] = inputs.queryShape;
    const dy = randomInputs({batch, heads, length, headDim: inputs.valueShape[3]}, 99).value;
    const gradients = oracleGradients(clean, options, dy);
    const dyTensor = tensor4d(dy, [batch, heads, length, inputs.valueShape[3]]);
    const found = grads4D((...x) => flashAttention(x[0], x[1], x[2], given))([q, k, v], dyTensor);
    for (const [i, of] of names.entries()) {
      const error = difference(await found[i].data(), gradients[of], gradients.magnitudes[of]);
      expect(error, `${name}, gradient of ${of}`).to.be.below(2 * tolerance);
    }
    dispose([q, k, v, output, logSumExp, alone, dyTensor, ...found, ...(given.mask ? [given.mask] : [])]);
    expect(memory().numTensors).to.equal(before);
  }

  it('rows from a position of each entry', async () => {
    const chunk = randomInputs({batch: 3, heads: 2, keyValueHeads: 1, length: 6, keyLength: 20, headDim: 8}, 31);
    const queryOffset = [14, 0, 5];
    await expectOracle(chunk, {queryOffset, keyLengths: [20, 6, 9]}, 'causal');
    if (!isCPU) return;
    await expectOracle(chunk, {queryOffset, causal: false, window: 4, alibiSlopes: [0.5, 0.25]}, 'forms');
    const mask = {values: Array.from({length: 60}, (_, i) => (i % 3 ? 0.5 : -Infinity)), shape: [3, 1, 1, 20] as const, dtype: 'float32' as const}; // prettier-ignore
    await expectOracle(chunk, {queryOffset, mask: {...mask, shape: [...mask.shape]}, sinks: [1, -1]}, 'mask');
    const blocks = {blockSize: 4, keyBlockSize: 2, segmentSize: 4, threshold: 0.3, auto: false};
    const attend = (entries: Tensor4D[], queryOffset: number | number[]) =>
      pbsAttention(entries[0], entries[1], entries[2], {...blocks, queryOffset, mask: entries[3]});
    const [together, alone] = tidy(() => {
      const ofAll = [...tensors(chunk), maskTensor({...mask, shape: [...mask.shape]})];
      const entries = queryOffset.map((offset, entry) =>
        attend(
          ofAll.map((x) => slice(x, entry, 1)),
          offset,
        ),
      );
      return [attend(ofAll, queryOffset), concat(entries)];
    });
    expect(Array.from(await together.data()), 'blocks under a mask').to.deep.equal(Array.from(await alone.data()));
    dispose([together, alone]);
  });

  it('padding on the left, which may be NaN: it matters to nothing', async () => {
    const prompt = randomInputs({batch: 3, heads: 2, keyValueHeads: 1, length: 12, headDim: 8}, 32);
    const keyStarts = [0, 5, 12];
    const padded = spoiled(prompt, keyStarts);
    await expectOracle(prompt, {keyStarts}, 'causal', padded);
    if (!isCPU) return;
    await expectOracle(prompt, {keyStarts, causal: false}, 'not causal', padded);
    await expectOracle(prompt, {keyStarts, sinks: [1, -1], window: 3, keyLengths: [12, 4, 12]}, 'forms', padded);
    const decode = randomInputs({batch: 3, heads: 2, length: 2, keyLength: 12, headDim: 8}, 33);
    await expectOracle(decode, {keyStarts, queryOffset: 7}, 'decoding', spoiled(decode, keyStarts));
    await expectOracle(decode, {keyStarts, causal: false}, 'cross-attention', spoiled(decode, keyStarts));
  });

  it('of block-sparse attention choose as they do without padding', async () => {
    const options = {blockSize: 8, segmentSize: 16, auto: false, threshold: 0.3};
    const clean = randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 60, headDim: 8}, 34);
    const keyStarts = [0, 11];
    const [q, k, v] = tensors(spoiled(clean, keyStarts));
    const attention: Attention = (...x) => pbsAttention(x[0], x[1], x[2], {...options, keyStarts});
    const output = attention(q, k, v);
    const exact = pbsAttention(q, k, v, {...options, keyStarts, threshold: 1});
    expect(difference(await exact.data(), attentionOracle(clean, {keyStarts}).output)).to.be.below(tolerance);
    const dy = randomInputs({batch: 2, heads: 2, length: 60, headDim: 8}, 35).value;
    const dyTensor = tensor4d(dy, [2, 2, 60, 8]);
    const found = grads4D(attention)([q, k, v], dyTensor);
    const results = await Promise.all([output, ...found].map((x) => x.data()));
    let skipped = 0;
    for (const [entry, start] of keyStarts.entries()) {
      const own = entryOf(clean, entry, start);
      const [ownQuery, ownKey, ownValue] = tensors(own);
      const plan = pbsAttentionPlan(ownQuery, ownKey, options);
      const mask = planMask(await valuesOf(plan));
      skipped += Array.from(mask.values).filter((x) => x === 0).length;
      const ownDy = entryOf({...clean, query: dy}, entry, start).query;
      const gradients = oracleGradients(own, {mask}, ownDy);
      const expected = [attentionOracle(own, {mask}).output, ...names.map((of) => gradients[of])];
      for (const [i, values] of results.entries()) {
        const shape = [clean.queryShape, clean.queryShape, clean.keyShape, clean.valueShape][i];
        const ofEntry = entryOf({...clean, query: values as Float32Array, queryShape: shape}, entry, start).query;
        expect(difference(ofEntry, expected[i]), `entry ${entry}, result ${i}`).to.be.below(5 * tolerance);
      }
      dispose([ownQuery, ownKey, ownValue, plan.keyIndices, plan.blockMask]);
    }
    expect(skipped).to.be.above(0);
    dispose([q, k, v, output, exact, dyTensor, ...found]);
  });

  it('names what it cannot take', () => {
    const [q, k, v] = tensors(randomInputs({batch: 2, length: 4, keyLength: 6, headDim: 8}, 36));
    const call = (options: object) => () => pbsAttention(q, k, v, options);
    expect(call({keyStarts: [0]})).to.throw(/keyStarts: got \[0\]; takes 2 integers from 0 to 6/);
    expect(call({keyStarts: [0, 7]})).to.throw(/keyStarts: got \[0,7\];/);
    expect(call({keyStarts: 3})).to.throw(/keyStarts: got 3; takes 2 integers/);
    expect(call({queryOffset: [0, 3]})).to.throw(/queryOffset: got \[0,3\]; takes 2 integers from 0 to 2/);
    expect(call({queryOffset: [0, 1], plan: {}})).to.throw(/plan: got one; takes none with keyStarts or a queryOffset/);
    expect(call({queryOffset: [0, 1], treshold: 1})).to.throw(/options: got 'treshold'/);
    const mask = tensor4d([1, 1, 1, 1, 1, 1], [1, 1, 1, 6]);
    expect(() => flashAttention(q, k, v, {keyStarts: [0, 1], mask})).to.throw(/mask: got one with keyStarts; takes/);
    expect(() => pbsAttentionPlan(q, k, {keyStarts: [0, 1]})).to.throw(/options: got 'keyStarts'/);
    expect(() => pbsAttentionPlan(q, k, {queryOffset: [0, 1]})).to.throw(/queryOffset: got Array/);
    dispose([q, k, v, mask]);
  });
});
