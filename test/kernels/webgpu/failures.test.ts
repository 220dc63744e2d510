import type {Tensor4D} from '@tensorflow/tfjs-core';
import {backend as activeBackend, dispose, memory} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention} from '../../../src/index';
import {attentionCalls} from '../../faults/attention_calls';
import {failEach, sample} from '../../faults/fail_each';
import {flush, onOwnDevice, webgpuFaults} from '../../faults/webgpu_faults';
import {randomInputs, tensors} from '../../reference/attention';
import {testBackends} from '../../setup/environment';

if (testBackends().includes('webgpu')) {
  describe('failures of the device [webgpu]', function () {
    this.timeout(600_000);
    onOwnDevice();
    const gpu = () => activeBackend() as WebGPUBackend;

    for (const fault of ['allocation', 'pipeline', 'submit', 'map']) {
      for (const [name, run] of Object.entries(sample.of(attentionCalls))) {
        it(`${name}: whichever ${fault} fails, there is an error, and the next call is right`, async () => {
          const expected = await run();
          const tried = await failEach(webgpuFaults[fault](gpu()), {
            run,
            counts() {
              flush(gpu());
              return [memory().numTensors, gpu().numDataIds(), gpu().bufferManager.numBytesUsed];
            },
            check: (values) =>
              expect(values.map((x) => Array.from(x))).to.deep.equal(expected.map((x) => Array.from(x))),
          });
          expect(tried).to.be.at.least(1);
        });
      }
    }

    it('does not lose what was put on the device for commands that fail, and refuses what they were to give', async () => {
      const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 72, headDim: 8}, 73);
      const attend = async (...given: ReturnType<typeof tensors>) => {
        const output = flashAttention(...given);
        try {
          return Array.from(await output.data());
        } finally {
          output.dispose();
        }
      };
      const [before, again] = [tensors(inputs), tensors(inputs)];
      const expected = await attend(...before);
      // Their buffers are taken again, into which values are copied by commands.
      dispose(before);
      flush(gpu());
      const fault = webgpuFaults.submit(gpu());
      fault.arm(1);
      const lost = flashAttention(...again);
      const failure = await lost.data().catch((error: Error) => error);
      fault.disarm();
      expect((failure as Error).message).to.match(/^webgpu: commands were refused, and their values are lost: /);
      expect(Array.from(await again[0].data())).to.deep.equal(Array.from(inputs.query));
      expect(await attend(...again)).to.deep.equal(expected);
      const [, k, v] = again;
      expect(() => flashAttention(lost as Tensor4D, k, v)).to.throw(
        /^flashAttention: query: its values were lost: webgpu: commands were refused/,
      );
      expect(await lost.data().catch((error: Error) => error)).to.equal(failure);
      dispose([...again, lost]);
    });

    it('says of which program, of what shape and of how many bytes there was no memory', async () => {
      const [q, k, v] = tensors(randomInputs({heads: 4, keyValueHeads: 2, length: 72, headDim: 8}, 74));
      await flashAttention(q, k, v).data();
      const fault = webgpuFaults.allocation(gpu());
      fault.arm(1);
      const lost = flashAttention(q, k, v);
      fault.disarm();
      const failure = await lost.data().catch((error: Error) => error);
      expect((failure as Error).message).to.match(/^Attend \[1,4,72,8\]: no buffer of 9216 bytes: /);
      dispose([q, k, v, lost]);
    });
  });
}
