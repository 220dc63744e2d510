import {backend, grads, memory, setBackend, tidy} from '@tensorflow/tfjs-core';
import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention, warmUpAttention} from '../../src/index';
import {backendDevice} from '../../src/kernels/backend_costs';
import {randomInputs, tensors} from '../reference/attention';
import {describeBackends} from '../setup/environment';

/** How many programs are compiled, on this thread and beside it, while `run` runs. */
async function compiledBy(run: () => Promise<unknown>): Promise<{here: number; beside: number}> {
  const count = {here: 0, beside: 0};
  const restore: Array<() => void> = [];
  const watch = <Host extends object>(
    host: Host,
    name: keyof Host,
    kind: keyof typeof count,
    isOurs: (first: unknown) => boolean = () => true,
  ) => {
    const original = host[name] as (...args: unknown[]) => unknown;
    const own = Object.hasOwn(host, name);
    (host as Record<keyof Host, unknown>)[name] = (...args: unknown[]) => {
      if (isOurs(args[0])) ++count[kind];
      return original.apply(host, args);
    };
    restore.push(() => {
      if (own) (host as Record<keyof Host, unknown>)[name] = original;
      else delete (host as Partial<Host>)[name];
    });
  };
  const active = backend() as unknown as {device?: WebGPUBackend['device']; gpgpu?: MathBackendWebGL['gpgpu']};
  if (active.device) {
    watch(active.device, 'createComputePipeline', 'here');
    watch(active.device, 'createComputePipelineAsync', 'beside');
  } else if (active.gpgpu) {
    // tfjs has its own, to upload tensors.
    const gl = active.gpgpu.gl as WebGL2RenderingContext;
    const isOurs = (program: unknown) =>
      gl.getAttachedShaders(program as WebGLProgram)!.some((x) => gl.getShaderSource(x)!.includes('sampler2DArray'));
    watch(gl, 'linkProgram', 'here', isOurs);
  }
  try {
    await run();
  } finally {
    restore.forEach((undo) => undo());
  }
  return count;
}

describeBackends('warmUpAttention', (backendName) => {
  before(() => setBackend(backendName));
  // Head dims that no other test has, so that nothing is compiled before.
  const options = {blockSize: 16, keyBlockSize: 8, segmentSize: 32, threshold: 0.8, auto: false};
  const shape = {heads: 2, keyValueHeads: 1, queryLength: 80, headDim: 12, valueDim: 20, options};
  const inputs = (headDim: number) =>
    tensors(randomInputs({heads: 2, keyValueHeads: 1, length: 80, headDim, valueDim: 20}, 91));

  it('compiles what a call needs, so that it compiles nothing', async function () {
    this.timeout(180_000);
    const before = {...memory(), ids: backend().numDataIds()};
    const ahead = await compiledBy(() => warmUpAttention(shape));
    expect(memory().numTensors).to.equal(before.numTensors);
    expect(backend().numDataIds()).to.equal(before.ids);
    if (backendName === 'webgpu') expect(ahead).to.deep.include({here: 0}).and.property('beside').is.above(0);
    if (backendName === 'webgl') expect(ahead.here).to.be.above(0);
    const [q, k, v] = inputs(12);
    let output: Tensor | undefined;
    const later = await compiledBy(async () => (output = pbsAttention(q, k, v, options)));
    expect(later).to.deep.equal({here: 0, beside: 0});
    // Means of values, and not all the same.
    const [means, values] = await Promise.all([output!.data(), v.data()]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    expect(means.every((x) => x >= least && x <= most)).to.equal(true);
    expect(new Set(means).size).to.be.above(means.length / 2);
  });

  it('compiles gradients', async function () {
    // Shaders of gradients take software long on WebGPU.
    if (backendName === 'webgpu' && backendDevice().deviceClass === 'software') this.skip();
    await warmUpAttention({...shape, headDim: 20, gradients: true});
    const gradients = grads((...given) => pbsAttention(...(given as [Tensor4D, Tensor4D, Tensor4D]), options));
    // Once for tfjs's own, of another head dim.
    tidy(() => void gradients(inputs(12)));
    const [q, k, v] = inputs(20);
    const later = await compiledBy(async () => void gradients([q, k, v]));
    expect(later).to.deep.equal({here: 0, beside: 0});
  });

  it('does not keep calls from running meanwhile', async () => {
    const pending = warmUpAttention({...shape, headDim: 28, options: {threshold: 1}});
    const [q, k, v] = inputs(28);
    const output = flashAttention(q, k, v);
    await pending;
    expect(Array.from(await output.data())).to.deep.equal(Array.from(await flashAttention(q, k, v).data()));
  });

  it('refuses shapes, and calls that would be refused', async () => {
    const before = backend().numDataIds();
    const refused: Array<[unknown, string]> = [
      [undefined, 'warmUpAttention: shapes: got undefined'],
      [[shape, 5], 'warmUpAttention: shapes[1]: got 5; takes {heads, queryLength, headDim} or an array of them.'],
      [{...shape, heads: 0}, 'warmUpAttention: shapes.heads: got 0; takes a positive integer.'],
      [{...shape, headDim: undefined}, 'warmUpAttention: shapes.headDim: got undefined; takes a positive integer.'],
      [{...shape, keyLength: 80.5}, 'warmUpAttention: shapes.keyLength: got 80.5'],
      [{...shape, length: 80}, "warmUpAttention: shapes: got 'length'; takes batch, heads"],
    ];
    // The CPU makes no call.
    if (backendName !== 'cpu') {
      refused.push([{...shape, options: {threshold: 2}}, 'pbsAttention: threshold: got 2']);
      refused.push([{...shape, heads: 3, keyValueHeads: 2}, 'pbsAttention: key: got']);
    }
    for (const [given, message] of refused) {
      const failure = await warmUpAttention(given as never).catch((error: Error) => error.message);
      expect(failure).to.include(message);
    }
    expect(backend().numDataIds()).to.equal(before);
    const [q, k, v] = inputs(12);
    expect((await pbsAttention(q, k, v, options).data()).some((x) => x !== 0)).to.equal(true);
  });
});
