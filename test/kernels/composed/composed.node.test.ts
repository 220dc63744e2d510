import type {KernelConfig, Tensor4D} from '@tensorflow/tfjs-core';
import {
  backend,
  dispose,
  getKernelsForBackend,
  profile,
  registerBackend,
  registerKernel,
  removeBackend,
  setBackend,
  tensor4d,
  unregisterKernel,
} from '@tensorflow/tfjs-core';
import {MathBackendCPU} from '@tensorflow/tfjs-backend-cpu';
import {expect} from 'chai';
import {calibrateAttention, flashAttention, pbsAttention, useAttentionCalibration} from '../../../src/index';
import {randomInputs, tensors} from '../../reference/attention';
import {grads4D} from '../../reference/attention_gradients';
import {attentionOracle, oracleGradients} from '../../reference/attention_oracle';
import {difference} from '../../reference/difference';

const isOurs = ({kernelName}: KernelConfig) => /^(FlashAttention|AttentionWith|PBSAttention)/.test(kernelName);

/** Runs `body` on a backend of its own, which has tfjs's kernels for the CPU and none of ours; gives what was printed meanwhile. */
async function onBackend(name: string, made: MathBackendCPU, body: () => Promise<void>): Promise<unknown[]> {
  const kernels = getKernelsForBackend('cpu').filter((kernel) => !isOurs(kernel));
  kernels.forEach((kernel) => registerKernel({...kernel, backendName: name}));
  registerBackend(name, () => made);
  await setBackend(name);
  const {warn} = console;
  const printed: unknown[] = [];
  console.warn = (...parts: unknown[]) => printed.push(parts.join(' '));
  try {
    await body();
  } finally {
    console.warn = warn;
    await setBackend('cpu');
    removeBackend(name);
    getKernelsForBackend(name).forEach(({kernelName}) => unregisterKernel(kernelName, name));
  }
  return printed.filter((text) => String(text).includes('tfjs-pbs-attention'));
}

describe('attention composed of ops of tfjs', () => {
  const shape = {heads: 4, keyValueHeads: 2, length: 40, headDim: 8};

  it('runs on a backend without kernels, and says so once', async () => {
    const printed = await onBackend('plain', new MathBackendCPU(), async () => {
      const inputs = randomInputs(shape, 1);
      const [q, k, v] = tensors(inputs);
      const expected = attentionOracle(inputs).output;
      expect(difference(await flashAttention(q, k, v).data(), expected)).to.be.below(1e-6);
      expect(difference(await pbsAttention(q, k, v, {threshold: 1}).data(), expected)).to.be.below(1e-6);
      dispose([q, k, v]);
    });
    expect(printed).to.deep.equal([
      "tfjs-pbs-attention: the backend 'plain' has no kernels for attention; it runs composed of tfjs's ops, slower than on webgpu or webgl.",
    ]);
  });

  it('refuses a backend from which nothing can be read at once', async () => {
    class Unread extends MathBackendCPU {
      override readSync(): never {
        throw new Error('readSync is not there');
      }
    }
    await onBackend('unread', new Unread(), async () => {
      const [q, k, v] = tensors(randomInputs(shape, 2));
      const message = /flashAttention: backend: got 'unread', which does not give values; takes one from which/;
      expect(() => flashAttention(q, k, v)).to.throw(message);
      dispose([q, k, v]);
    });
  });

  it('holds no more scores than it says, forward and backward', async () => {
    expect(await setBackend('wasm')).to.equal(true);
    // 2.8 million scores.
    const inputs = randomInputs({length: 70, keyLength: 40_000, headDim: 4}, 3);
    const dy = randomInputs({length: 70, headDim: 4}, 4).value;
    const expected = oracleGradients(inputs, {}, dy);
    const [q, k, v] = tensors(inputs);
    const dyTensor = tensor4d(dy, inputs.queryShape);
    let found: Tensor4D[] = [];
    const {kernels} = await profile(() => {
      found = grads4D((...x) => flashAttention(x[0], x[1], x[2]))([q, k, v], dyTensor);
      return found;
    });
    const sizes = kernels.flatMap(({outputShapes}) => outputShapes.map((of) => of.reduce((a, b) => a * b, 1)));
    expect(Math.max(...sizes)).to.be.within(2 ** 20, 2 ** 21);
    for (const [i, of] of (['query', 'key', 'value'] as const).entries()) {
      expect(difference(await found[i].data(), expected[of], expected.magnitudes[of]), of).to.be.below(1e-5);
    }
    dispose([q, k, v, dyTensor, ...found]);
    await setBackend('cpu');
  });

  it('has no times to calibrate', async () => {
    await onBackend('slow', new MathBackendCPU(), async () => {
      const message = /backend: got 'slow', which has no kernels of its own; takes cpu, webgl, webgpu/;
      expect(() => useAttentionCalibration(undefined)).to.throw(message);
      const outcome = await calibrateAttention().catch((error: Error) => error.message);
      expect(outcome).to.match(message);
      expect(backend()).to.be.instanceOf(MathBackendCPU);
    });
  });
});
