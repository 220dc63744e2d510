import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {drawToken, Sampler, type Sampling} from '../../../runner/llama/sample';
import {describeBackends} from '../../setup/environment';

/** Probabilities 0.1, 0.5, 0.15 and 0.25. */
const probabilities = [0.1, 0.5, 0.15, 0.25];
const logits = Float32Array.from(probabilities, (p) => Math.log(p) + 3);

describe('drawToken', () => {
  /** Share of `[0, 1)` that each token takes, in steps of 1/1000. */
  const shares = (temperature: number, topP: number) => {
    const counts = probabilities.map(() => 0);
    for (let i = 0; i < 1000; ++i) ++counts[drawToken(logits, temperature, topP, (i + 0.5) / 1000)];
    return counts.map((count) => count / 1000);
  };
  const expectClose = (got: number[], expected: number[]) =>
    got.forEach((share, token) => expect(share, `token ${token}`).to.be.closeTo(expected[token], 0.0015));

  it('draws by the probabilities', () => expectClose(shares(1, 1), probabilities));

  it('divides the logits by the temperature', () => {
    const roots = probabilities.map(Math.sqrt);
    const sum = roots.reduce((a, b) => a + b);
    expectClose(
      shares(2, 1),
      roots.map((x) => x / sum),
    );
  });

  it('draws from the fewest tokens that reach topP', () => {
    expectClose(shares(1, 0.4), [0, 1, 0, 0]);
    expectClose(shares(1, 0.7), [0, 2 / 3, 0, 1 / 3]);
    expectClose(shares(1, 0.8), [0, 5 / 9, 1.5 / 9, 2.5 / 9]);
    expectClose(shares(1, 0.95), probabilities);
  });

  it('takes the lower id among equally likely tokens', () => {
    const equal = new Float32Array(5);
    const drawn = new Set([0, 0.3, 0.6, 0.999].map((at) => drawToken(equal, 1, 0.4, at)));
    expect([...drawn]).to.deep.equal([0, 1]);
  });

  it('stands very large and impossible logits, and a very low temperature', () => {
    const hard = Float32Array.of(-Infinity, 1e30, -1e30, 1e30);
    expect(drawToken(hard, 1, 1, 0)).to.equal(1);
    expect(drawToken(hard, 1, 1, 1 - 2 ** -32)).to.equal(3);
    expect(drawToken(logits, 1e-6, 1, 0.999)).to.equal(1);
  });

  it('refuses logits that are no numbers', () => {
    expect(() => drawToken(Float32Array.of(1, NaN), 1, 1, 0.5)).to.throw(/logits reach NaN; accepted: finite/);
  });
});

describeBackends('Sampler', (backend) => {
  before(() => tf.setBackend(backend));

  const draw = async (sampling: Sampling, count: number): Promise<number[]> => {
    const sampler = new Sampler(sampling);
    const tensor = tf.tensor1d(logits);
    const tokens: number[] = [];
    for (let i = 0; i < count; ++i) tokens.push(await sampler.next(tensor));
    tensor.dispose();
    return tokens;
  };

  it('takes the most likely token at temperature 0', async () => {
    expect(await draw({temperature: 0, topP: 1, seed: 1}, 2)).to.deep.equal([1, 1]);
  });

  it('draws the same with the same seed, and leaves nothing behind', async () => {
    const before = tf.memory().numTensors;
    const first = await draw({temperature: 1, topP: 1, seed: 1}, 40);
    expect(await draw({temperature: 1, topP: 1, seed: 1}, 40)).to.deep.equal(first);
    expect(await draw({temperature: 1, topP: 1, seed: 2}, 40)).not.to.deep.equal(first);
    expect(new Set(first).size).to.be.greaterThan(2);
    expect(tf.memory().numTensors).to.equal(before);
  });

  /** Shares of the tokens that are drawn from logits of their probabilities, with a temperature that sharpens them or not. */
  async function sharesOf(sampling: Sampling, of: number[], count: number): Promise<number[]> {
    const sampler = new Sampler(sampling);
    const tensor = tf.tensor1d(of.map((p) => sampling.temperature * Math.log(p) - 40));
    const shares = of.map(() => 0);
    for (let i = 0; i < count; ++i) shares[await sampler.next(tensor)] += 1 / count;
    tensor.dispose();
    return shares;
  }

  it('draws by the probabilities, from the fewest tokens that reach topP', async () => {
    const count = 150;
    // As many tokens as a model has, of which most have next to no weight.
    const many = Array.from({length: 60_000}, (_, i) => (i % 15_000 === 7 ? 0.2475 : 0.01 / 59_996));
    for (const [topP, of, kept] of [
      [1, probabilities, [0, 1, 2, 3]],
      [0.8, probabilities, [1, 2, 3]],
      [0.4, probabilities, [1]],
      [0.9, many, [7, 15_007, 30_007, 45_007]],
    ] as Array<[number, number[], number[]]>) {
      const shares = await sharesOf({temperature: 0.7, topP, seed: 5}, of, count);
      const sum = kept.reduce((total, token) => total + of[token], 0);
      shares.forEach((share, token) => {
        const p = kept.includes(token) ? of[token] / sum : 0;
        // Five standard deviations.
        expect(share, `topP ${topP}, token ${token}`).to.be.closeTo(p, 5 * Math.sqrt((p * (1 - p)) / count) + 1e-9);
      });
    }
  });

  it('seldom draws one of many tokens of little weight', async () => {
    const count = 60;
    const many = Array.from({length: 60_000}, (_, i) => (i === 31_234 ? 1 : 1e-9));
    const shares = await sharesOf({temperature: 0.7, topP: 1, seed: 3}, many, count);
    expect(shares[31_234]).to.be.greaterThan(1 - 1e-9);
  });

  it('stands impossible logits, and refuses those that are no numbers', async () => {
    const drawn = async (temperature: number, ...values: number[]) => {
      const tensor = tf.tensor1d(values);
      try {
        return await new Sampler({temperature, topP: 0.9, seed: 1}).next(tensor);
      } finally {
        tensor.dispose();
      }
    };
    for (const temperature of [1e-3, 1, 100]) expect(await drawn(temperature, -Infinity, 1e30, -1e30)).to.equal(1);
    expect(await drawn(0, -Infinity, -7, -8)).to.equal(1);
    for (const bad of [NaN, Infinity]) {
      const message = await drawn(1, 1, bad, 2).then(String, (error: Error) => error.message);
      expect(message).to.match(/accepted: finite numbers/);
    }
  });

  it('refuses what cannot be sampled by', () => {
    const good = {temperature: 1, topP: 1, seed: 1};
    expect(() => new Sampler({...good, temperature: -1})).to.throw(/temperature is -1; accepted: 0 or a positive/);
    expect(() => new Sampler({...good, temperature: NaN})).to.throw(/temperature is NaN/);
    expect(() => new Sampler({...good, topP: 0})).to.throw(/topP is 0; accepted: a number above 0, at most 1/);
    expect(() => new Sampler({...good, topP: 1.1})).to.throw(/topP is 1\.1/);
    expect(() => new Sampler({...good, seed: 0.5})).to.throw(/seed is 0\.5; accepted: an integer/);
  });
});
