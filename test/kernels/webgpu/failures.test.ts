import {backend as activeBackend, memory} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {attentionCalls} from '../../faults/attention_calls';
import {failEach, sample} from '../../faults/fail_each';
import {flush, onOwnDevice, webgpuFaults} from '../../faults/webgpu_faults';
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
  });
}
