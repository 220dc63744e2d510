import {backend as activeBackend, memory, setBackend} from '@tensorflow/tfjs-core';
import type {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import {attentionContext} from '../../../src/kernels/webgl/runtime/context';
import {attentionCalls} from '../../faults/attention_calls';
import {failEach, sample} from '../../faults/fail_each';
import {webglFaults} from '../../faults/webgl_faults';
import {testBackends} from '../../setup/environment';

if (testBackends().includes('webgl')) {
  describe('failures of the context [webgl]', function () {
    this.timeout(600_000);
    before(() => setBackend('webgl'));
    const webgl = () => activeBackend() as MathBackendWebGL;

    for (const fault of ['texture of tfjs', 'texture of rows', 'buffer of a read', 'program']) {
      for (const [name, run] of Object.entries(sample.of(attentionCalls))) {
        it(`${name}: whichever ${fault} fails, there is an error, and the next call is right`, async () => {
          const expected = await run();
          const tried = await failEach(webglFaults[fault](webgl()), {
            run,
            counts: () => [
              memory().numTensors,
              webgl().numDataIds(),
              (memory() as unknown as {numBytesInGPU: number}).numBytesInGPU,
              attentionContext('test', webgl()).pool.inUse,
            ],
            check: (values) =>
              expect(values.map((x) => Array.from(x))).to.deep.equal(expected.map((x) => Array.from(x))),
          });
          expect(tried).to.be.at.least(1);
        });
      }
    }
  });
}
