import {backend as activeBackend, dispose, memory} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention, releaseAttentionMemory} from '../../../src/index';
import {flush, onOwnDevice} from '../../faults/webgpu_faults';
import {randomInputs, tensors} from '../../reference/attention';
import {testBackends} from '../../setup/environment';

/** Takes all memory of the machine's GPU, from everybody: `LACK_OF_MEMORY=1`, by hand. */
if (testBackends().includes('webgpu') && process.env.LACK_OF_MEMORY) {
  describe('a GPU without memory [webgpu]', function () {
    this.timeout(600_000);
    onOwnDevice();

    const filling: GPUBuffer[] = [];
    let filled: GPUDevice | undefined;
    /** Memory comes back when the device has done what it was sent after that: Dawn gives it back by what is submitted. */
    const empty = async () => {
      filling.splice(0).forEach((buffer) => buffer.destroy());
      for (let isFull = filled !== undefined; isFull;) {
        filled!.queue.submit([filled!.createCommandEncoder().finish()]);
        await filled!.queue.onSubmittedWorkDone();
        filled!.pushErrorScope('out-of-memory');
        const large = filled!.createBuffer({size: 2 ** 28, usage: GPUBufferUsage.STORAGE});
        isFull = (await filled!.popErrorScope()) !== null;
        large.destroy();
      }
      filled = undefined;
    };
    afterEach(empty);

    /** Takes buffers, large ones first, until the device has none of a mebibyte. */
    async function fill(device: GPUDevice): Promise<number> {
      let bytes = 0;
      filled = device;
      for (let size = 2 ** 28; size >= 2 ** 20;) {
        device.pushErrorScope('out-of-memory');
        const buffer = device.createBuffer({size, usage: GPUBufferUsage.STORAGE});
        if (await device.popErrorScope()) size /= 2;
        else {
          filling.push(buffer);
          bytes += size;
        }
      }
      return bytes;
    }

    const calls = {
      exact: flashAttention,
      sparse: (...[q, k, v]: ReturnType<typeof tensors>) => pbsAttention(q, k, v, {auto: false}),
    };
    for (const [name, attend] of Object.entries(calls)) {
      it(`${name}: the call or its read says what did not fit, nothing stays, and the next call is right`, async () => {
        const gpu = activeBackend() as WebGPUBackend;
        const inputs = tensors(randomInputs({heads: 8, keyValueHeads: 8, length: 8192, headDim: 64}, 75));
        const run = async () => {
          const output = attend(...inputs);
          try {
            return await output.data();
          } finally {
            output.dispose();
          }
        };
        const expected = await run();
        releaseAttentionMemory();
        flush(gpu);
        // What tfjs keeps of freed buffers would do. Its `dispose` takes those in use, too.
        const {freeBuffers} = gpu.bufferManager as unknown as {freeBuffers: Map<string, GPUBuffer[]>};
        freeBuffers.forEach((buffers) => buffers.splice(0).forEach((buffer) => buffer.destroy()));
        const before = memory().numTensors;
        const taken = await fill(gpu.device);
        console.log(`      ${(taken / 2 ** 30).toFixed(1)} GiB taken`);
        const failure = await run().catch((error: Error) => error);
        expect(failure).to.be.instanceOf(Error);
        expect((failure as Error).message).to.match(/no buffer of \d+ bytes/);
        expect(memory().numTensors).to.equal(before);
        await empty();
        expect(await run()).to.deep.equal(expected);
        dispose(inputs);
      });
    }
  });
}
