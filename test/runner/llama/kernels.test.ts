import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {
  type Activation,
  composedGatedActivation,
  gatedActivation,
} from '../../../runner/llama/kernels/gated_activation';
import {composedRMSNorm, rmsNorm} from '../../../runner/llama/kernels/rms_norm';
import {composedRotaryEmbedding, rotaryEmbedding} from '../../../runner/llama/kernels/rotary_embedding';
import {hasKernel} from '../../../runner/llama/kernels/run_kernel';
import {rotaryTables} from '../../../runner/llama/rotary';
import {describeBackends} from '../../setup/environment';

let seed = 0;

function random<T extends tf.Tensor>(shape: number[], most = 1): T {
  return tf.randomUniform(shape, -most, most, 'float32', ++seed) as tf.Tensor as T;
}

/**
 * Runs an op of the model and its composed form on the same inputs. A kernel may add up in another order than tfjs's ops
 * do, and round differently at each step: 1e-5 of the largest value is some 80 roundings of float32.
 */
async function expectAlike(run: () => tf.Tensor[], composed: () => tf.Tensor[]): Promise<void> {
  const before = tf.memory().numTensors;
  const [got, expected] = [tf.tidy(run), tf.tidy(composed)];
  expect(tf.memory().numTensors, 'tensors left behind').to.equal(before + got.length + expected.length);
  expect(got.map(({shape}) => shape)).to.deep.equal(expected.map(({shape}) => shape));
  for (const [i, tensor] of got.entries()) {
    const [a, b] = await Promise.all([tensor.data(), expected[i].data()]);
    const largest = [...b].reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    expect(largest).to.be.greaterThan(0);
    // A NaN is not less than anything.
    const wrong = a.findIndex((x, at) => !(Math.abs(x - b[at]) <= 1e-5 * largest));
    expect(wrong, `output ${i}: ${a[wrong]} instead of ${b[wrong]} at`).to.equal(-1);
  }
  tf.dispose([got, expected]);
}

describeBackends('ops of the model against tfjs’s own', (backend) => {
  before(() => tf.setBackend(backend));
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  it('has kernels on WebGPU alone', () => {
    for (const name of ['RMSNorm', 'RotaryEmbedding', 'GatedActivation']) {
      expect(hasKernel(name), name).to.equal(backend === 'webgpu');
    }
  });

  // Rows of vectors and of single values; fewer and more of them than invocations.
  for (const [rows, columns] of [
    [1, 36],
    [5, 36],
    [3, 33],
    [2, 1],
    [7, 256],
    [2, 1030],
    [1, 4100],
  ]) {
    it(`rmsNorm [${rows}, ${columns}]`, async () => {
      const x = random<tf.Tensor2D>([rows, columns], 3);
      await expectAlike(
        () => [rmsNorm(x, 1e-5)],
        () => [composedRMSNorm(x, 1e-5)],
      );
      const options = {weight: random<tf.Tensor1D>([columns]), residual: random<tf.Tensor2D>([rows, columns])};
      await expectAlike(
        () => [rmsNorm(x, 1e-5, options)],
        () => [composedRMSNorm(x, 1e-5, options)],
      );
    });
  }

  it('rmsNorm by its definition, also of values so small that epsilon counts', async () => {
    for (const values of [
      [3, -4, 0, 5, 1],
      [3e-3, -4e-3, 0, 1e-3],
    ]) {
      const meanSquare = values.reduce((sum, x) => sum + x * x, 0) / values.length;
      const got = await rmsNorm(tf.tensor2d([values]), 1e-5).data();
      values.forEach((x, i) => expect(got[i]).to.be.closeTo(x / Math.sqrt(meanSquare + 1e-5), 1e-6));
    }
  });

  it('rmsNorm of more rows than a dispatch has workgroups in one dimension', async () => {
    const values = Float32Array.from({length: 65_600}, (_, i) => (i % 17) - 8);
    const got = await rmsNorm(tf.tensor2d(values, [values.length, 1]), 2).data();
    const wrong = got.findIndex((x, i) => !(Math.abs(x - values[i] / Math.sqrt(values[i] ** 2 + 2)) < 1e-5));
    expect(wrong).to.equal(-1);
  });

  for (const [rows, columns, activation] of [
    [1, 52, 'silu'],
    [3, 33, 'gelu'],
    [5, 64, 'silu'],
    [5, 64, 'gelu'],
  ] as Array<[number, number, Activation]>) {
    it(`gatedActivation ${activation} [2, ${rows}, ${columns}]`, async () => {
      const gateAndUp = random<tf.Tensor3D>([2, rows, columns], 10);
      await expectAlike(
        () => [gatedActivation(gateAndUp, activation)],
        () => [composedGatedActivation(gateAndUp, activation)],
      );
    });
  }

  for (const activation of ['silu', 'gelu'] as const) {
    it(`gatedActivation ${activation} lets large gates pass and closes for very negative ones`, async () => {
      const got = await gatedActivation(tf.tensor3d([100, -100, -1000, 0, 3, 3, 3, 3], [2, 1, 4]), activation).data();
      [300, 0, 0, 0].forEach((x, i) => expect(got[i]).to.be.closeTo(x, 1e-3));
    });
  }

  it('gatedActivation gelu has the values of gelu_pytorch_tanh', async () => {
    const gates = [-2, -0.5, 0.1, 1, 3];
    const expected = gates.map((x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))));
    const got = await gatedActivation(tf.tensor3d([...gates, 1, 1, 1, 1, 1], [2, 1, 5]), 'gelu').data();
    expected.forEach((x, i) => expect(got[i]).to.be.closeTo(x, 1e-5));
  });

  for (const [headDim, length, start, groups] of [
    [8, 5, 0, [4, 2]],
    [12, 3, 7, [4, 1]],
    [6, 1, 31, [1, 1]],
    [64, 33, 3, [2]],
  ] as Array<[number, number, number, number[]]>) {
    it(`rotaryEmbedding, head dim ${headDim}, ${length} rows from ${start}, heads ${groups.join(' + ')}`, async () => {
      const tables = rotaryTables(start + length + 2, headDim, 10_000);
      const heads = groups.reduce((sum, group) => sum + group, 0);
      const x = random<tf.Tensor3D>([heads, length, headDim]);
      await expectAlike(
        () => rotaryEmbedding(x, tables, start, groups),
        () => composedRotaryEmbedding(x, tables, start, groups),
      );
    });
  }
});
