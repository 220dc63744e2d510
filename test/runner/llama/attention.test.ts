import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {composedAttention} from '../../../runner/llama/attention';
import {rotaryEmbedding} from '../../../runner/llama/kernels/rotary_embedding';
import {rotaryTables} from '../../../runner/llama/rotary';
import {flashAttention} from '../../../src/index';
import {describeBackends} from '../../setup/environment';

async function relativeL1(actual: tf.Tensor, expected: tf.Tensor): Promise<number> {
  expect(actual.shape).to.deep.equal(expected.shape);
  const [a, b] = await Promise.all([actual.data(), expected.data()]);
  let [difference, size] = [0, 0];
  for (let i = 0; i < a.length; ++i) {
    difference += Math.abs(a[i] - b[i]);
    size += Math.abs(b[i]);
  }
  return difference / size;
}

describeBackends('composedAttention', (backend) => {
  before(() => tf.setBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  const tensor = (shape: [number, number, number, number], seed: number) =>
    tf.randomUniform(shape, -2, 2, 'float32', seed) as tf.Tensor4D;

  it('equals flashAttention with grouped heads', async () => {
    const [q, k, v] = [tensor([2, 6, 37, 8], 1), tensor([2, 2, 37, 8], 2), tensor([2, 2, 37, 8], 3)];
    expect(await relativeL1(composedAttention(q, k, v), flashAttention(q, k, v))).to.be.lessThan(1e-4);
  });

  it('equals flashAttention where the rows are too many for one softmax', async () => {
    // 65,538 rows.
    const heads = 21_846;
    const [q, k, v] = [tensor([1, heads, 3, 8], 1), tensor([1, heads / 2, 3, 8], 2), tensor([1, heads / 2, 3, 8], 3)];
    expect(await relativeL1(composedAttention(q, k, v), flashAttention(q, k, v))).to.be.lessThan(1e-4);
  });

  it('takes fewer queries than keys as the last rows', async () => {
    const [q, k, v] = [tensor([1, 4, 21, 8], 1), tensor([1, 2, 21, 8], 2), tensor([1, 2, 21, 8], 3)];
    const whole = composedAttention(q, k, v);
    for (const rows of [1, 5]) {
      const lastRows = composedAttention(tf.slice(q, [0, 0, 21 - rows, 0], [1, 4, rows, 8]), k, v);
      expect(await relativeL1(lastRows, tf.slice(whole, [0, 0, 21 - rows, 0], [1, 4, rows, 8]))).to.be.lessThan(1e-5);
    }
  });
});

describeBackends('rotary embedding', (backend) => {
  before(() => tf.setBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  it('turns component i with i + headDim / 2, by position times theta^(-2i / headDim)', async () => {
    const tables = rotaryTables(16, 4, 100);
    // Position 12; frequencies 1 and 1/10.
    const [rotated] = rotaryEmbedding(tf.tensor3d([1, 0, 0, 2], [1, 1, 4]), tables, 12, [1]);
    const turned = await rotated.data();
    const expected = [Math.cos(12), -2 * Math.sin(1.2), Math.sin(12), 2 * Math.cos(1.2)];
    expected.forEach((x, i) => expect(turned[i]).to.be.closeTo(x, 1e-5));
  });

  it('makes products depend on the distance alone', async () => {
    const tables = rotaryTables(128, 8, 10_000);
    const [q, k] = [
      tf.randomUniform<tf.Rank.R3>([1, 1, 8], -1, 1, 'float32', 1),
      tf.randomUniform<tf.Rank.R3>([1, 1, 8], -1, 1, 'float32', 2),
    ];
    const product = async (queryAt: number, keyAt: number) => {
      const [turnedQ] = rotaryEmbedding(q, tables, queryAt, [1]);
      const [turnedK] = rotaryEmbedding(k, tables, keyAt, [1]);
      return (await tf.sum(tf.mul(turnedQ, turnedK)).data())[0];
    };
    expect(await product(27, 20)).to.be.closeTo(await product(107, 100), 1e-4);
    expect(Math.abs((await product(27, 20)) - (await product(27, 24)))).to.be.greaterThan(1e-2);
  });
});
