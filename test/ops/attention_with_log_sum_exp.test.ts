import type {Tensor3D, Tensor4D} from '@tensorflow/tfjs-core';
import {
  add,
  concat,
  dispose,
  grads,
  memory,
  mul,
  reshape,
  setBackend,
  slice,
  sum,
  tensor,
  tensor4d,
  tidy,
  transpose,
} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {AttentionPart} from '../../src/index';
import {attentionWithLogSumExp, flashAttention, mergeAttention} from '../../src/index';
import {randomInputs, tensors} from '../reference/attention';
import type {OracleOptions} from '../reference/attention_oracle';
import {attentionOracle, oracleGradients} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {flashOptions, randomForm} from '../reference/random_forms';
import {describeAllBackends} from '../setup/environment';

describeAllBackends('attention with log-sum-exp', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-6 : 1e-5;

  it('gives what flashAttention gives, and the logarithms of the oracle, in any form', async function () {
    this.timeout(300_000);
    for (let seed = 1; seed <= 12; ++seed) {
      const {shape, options} = randomForm(seed, {few: true});
      const inputs = randomInputs(shape, seed);
      const [q, k, v] = tensors(inputs);
      const {output, logSumExp} = attentionWithLogSumExp(q, k, v, flashOptions(options));
      const expected = attentionOracle(inputs, options);
      expect(difference(await output.data(), expected.output), `seed ${seed}`).to.be.below(tolerance);
      const found = await logSumExp.data();
      expect(logSumExp.shape).to.deep.equal(output.shape.slice(0, 3));
      expected.logSumExp.forEach((x, i) => {
        if (Number.isFinite(x))
          expect(found[i], `seed ${seed}, row ${i}`).to.be.closeTo(x, 1e-5 * Math.max(1, Math.abs(x)));
        else expect(found[i], `seed ${seed}, row ${i}`).to.equal(-Infinity);
      });
      dispose([q, k, v, output, logSumExp]);
    }
  });

  it('has the gradients of both results', async () => {
    for (const options of [{}, {window: 5, softCap: 3, sinks: [1, -1], alibiSlopes: [0.5, 0.25], keyLengths: [20]}]) {
      const inputs = randomInputs({heads: 2, length: 9, keyLength: 20, headDim: 8}, 7);
      const dy = randomInputs({heads: 2, length: 9, headDim: 8}, 8).value;
      const dLogSumExp = randomInputs({heads: 2, length: 9, headDim: 1}, 9).value;
      const expected = oracleGradients(inputs, options as OracleOptions, dy, dLogSumExp);
      const x = tensors(inputs);
      const loss = (...[q, k, v]: Tensor4D[]) => {
        const {output, logSumExp} = attentionWithLogSumExp(q, k, v, options);
        return add(sum(mul(output, tensor4d(dy, [1, 2, 9, 8]))), sum(mul(logSumExp, tensor(dLogSumExp, [1, 2, 9]))));
      };
      const found = grads(loss as never)(x as never) as Tensor4D[];
      for (const [i, name] of (['query', 'key', 'value'] as const).entries()) {
        expect(difference(await found[i].data(), expected[name]), name).to.be.below(2e-5);
      }
    }
  });

  /** Attention by parts of the keys, which end at the cuts. */
  function inParts(
    [q, k, v]: Tensor4D[],
    cuts: number[],
    options: Pick<OracleOptions, 'softCap' | 'sinks'>,
  ): AttentionPart {
    const {sinks, ...others} = options;
    const parts = cuts.map((end, i) => {
      const start = cuts[i - 1] ?? 0;
      const [key, value] = [k, v].map((x) => slice(x, [0, 0, start, 0], [-1, -1, end - start, -1]));
      return attentionWithLogSumExp(q, key, value, {...others, causal: false, ...(i === 0 && {sinks})});
    });
    return mergeAttention(parts);
  }

  it('merges parts into the whole, with gradients, and nothing with nothing', async () => {
    const inputs = randomInputs({batch: 2, heads: 2, keyValueHeads: 1, length: 7, keyLength: 30, headDim: 8}, 11);
    for (const options of [{}, {softCap: 2, sinks: [1, -2]}]) {
      const whole = {...options, causal: false};
      const expected = attentionOracle(inputs, whole);
      const merged = tidy(() => inParts(tensors(inputs), [4, 5, 30], options));
      expect(difference(await merged.output.data(), expected.output)).to.be.below(tolerance);
      expect(difference(await merged.logSumExp.data(), expected.logSumExp)).to.be.below(tolerance);
      const dy = randomInputs({batch: 2, heads: 2, length: 7, headDim: 8}, 12).value;
      const dyTensor = tensor4d(dy, [2, 2, 7, 8]);
      const loss = (...x: Tensor4D[]) => sum(mul(inParts(x, [4, 5, 30], options).output, dyTensor));
      const found = grads(loss as never)(tensors(inputs) as never) as Tensor4D[];
      const gradients = oracleGradients(inputs, whole, dy);
      for (const [i, name] of (['query', 'key', 'value'] as const).entries()) {
        expect(difference(await found[i].data(), gradients[name]), name).to.be.below(2e-5);
      }
    }
    const [q, k, v] = tensors(inputs);
    const empty = attentionWithLogSumExp(q, k, v, {keyLengths: [0, 0]});
    const both = mergeAttention([empty, empty]);
    expect(new Set(await both.output.data())).to.deep.equal(new Set([0]));
    expect(new Set(await both.logSumExp.data())).to.deep.equal(new Set([-Infinity]));
    const one = attentionWithLogSumExp(q, k, v);
    const same = mergeAttention([empty, one]);
    expect(difference(await same.output.data(), await one.output.data())).to.be.below(tolerance);
  });

  it('attends to a prefix once for many continuations', async () => {
    const [heads, length, prefixLength, headDim] = [2, 5, 24, 8];
    const make = (batch: number, n: number, seed: number) =>
      tensors(randomInputs({batch, heads, length: n, headDim}, seed));
    const [query, key, value] = make(3, length, 21);
    const [, prefixKey, prefixValue] = make(1, prefixLength, 22);
    const before = memory().numTensors;
    const output = tidy(() => {
      const rows = reshape(transpose(query, [1, 0, 2, 3]), [1, heads, 3 * length, headDim]) as Tensor4D;
      const prefix = attentionWithLogSumExp(rows, prefixKey, prefixValue, {causal: false});
      const ofContinuations = {
        output: transpose(reshape(prefix.output, [heads, 3, length, headDim]), [1, 0, 2, 3]) as Tensor4D,
        logSumExp: transpose(reshape(prefix.logSumExp, [heads, 3, length]), [1, 0, 2]) as Tensor3D,
      };
      const own = attentionWithLogSumExp(query, key, value);
      return mergeAttention([ofContinuations, own]).output;
    });
    const expected = tidy(() => {
      const [allKeys, allValues] = [
        [prefixKey, key],
        [prefixValue, value],
      ].map(([prefix, x]) => concat([concat([prefix, prefix, prefix], 0), x], 2) as Tensor4D);
      return flashAttention(query, allKeys, allValues);
    });
    expect(difference(await output.data(), await expected.data())).to.be.below(tolerance);
    dispose([output, expected]);
    expect(memory().numTensors).to.equal(before);
  });

  it('refuses what it cannot merge', () => {
    const [q, k, v] = tensors(randomInputs({length: 4, headDim: 8}, 31));
    const part = attentionWithLogSumExp(q, k, v);
    const other = attentionWithLogSumExp(slice(q, 0, [1, 1, 2, 8]) as Tensor4D, k, v);
    expect(() => mergeAttention([])).to.throw(/mergeAttention: parts: got Array; takes one or more results/);
    expect(() => mergeAttention([part, other])).to.throw(/parts: got output \[1,1,2,8\] and logSumExp \[1,1,2\]/);
    expect(() => mergeAttention([{output: part.output} as AttentionPart])).to.throw(
      /got output .* logSumExp \[undefined\]/,
    );
  });
});
