import {backend as activeBackend, memory, removeBackend, setBackend, tensor4d} from '@tensorflow/tfjs-core';
import type {Tensor4D} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {flashAttention, pbsAttention} from '../../../src/index';
import {attentionCalls} from '../../faults/attention_calls';
import {all} from '../../faults/fail_each';
import {onOwnDevice, registerAnew, webgpuFaults} from '../../faults/webgpu_faults';
import {testBackends} from '../../setup/environment';

if (testBackends().includes('webgpu')) {
  describe('a lost device [webgpu]', function () {
    this.timeout(300_000);
    onOwnDevice();
    beforeEach(registerAnew);
    const gpu = () => activeBackend() as WebGPUBackend;
    const numbers = Float32Array.from({length: 64}, (_, i) => Math.sin(i));
    const make = () => tensor4d(numbers, [1, 1, 16, 4]);
    const failure = (promise: Promise<unknown>) =>
      promise.then(
        () => 'no failure',
        (error: Error) => error.message,
      );
    const lost =
      /^(webgpu|flashAttention|pbsAttention): the WebGPU device was lost.* Remove the webgpu backend and register it anew\.$/;

    async function attends(): Promise<void> {
      const x = make();
      const output = flashAttention(x, x, x, {causal: false, scale: 0});
      const values = await output.data();
      const mean = (column: number) => numbers.filter((_, i) => i % 4 === column).reduce((a, b) => a + b) / 16;
      expect(values[61]).to.be.closeTo(mean(1), 1e-5);
      [x, output].forEach((t) => t.dispose());
    }

    it('fails the read of what was under way, later reads and the next attention, each with one clear error', async () => {
      const {device} = gpu();
      const x = make();
      const [first, second] = [flashAttention(x, x, x), flashAttention(x, x, x)];
      const pending = failure(first.data());
      device.destroy();
      // An attention before the device has said so: its values cannot be read.
      const third = failure(Promise.resolve().then(() => flashAttention(x, x, x).data()));
      expect(await pending).to.match(lost);
      expect(await third).to.match(lost);
      await device.lost;
      expect(await failure(second.data())).to.match(lost);
      expect(() => second.dataSync()).to.throw(lost);
      expect(() => flashAttention(x, x, x)).to.throw(lost);
      expect(() => pbsAttention(x, x, x, {blockSize: 4, segmentSize: 8, threshold: 0.5, auto: false})).to.throw(lost);
      await registerAnew();
      await attends();
    });

    it('still reads what was on the processor', async () => {
      const x = make();
      const output = flashAttention(x, x, x);
      const values = await output.data();
      gpu().device.destroy();
      await gpu().device.lost;
      expect(await output.data()).to.deep.equal(values);
    });

    it('says so whichever submit it is lost at, and works again when it is registered anew', async () => {
      const run = attentionCalls[all ? 'by a plan' : 'exact'];
      const expected = await run();
      let losses = 0;
      for (let nth = 1; ; ++nth, ++losses) {
        const before = memory().numTensors;
        const fault = webgpuFaults['loss of the device'](gpu());
        const armed = fault.arm(nth);
        const outcome = await run().catch((error: Error) => error);
        fault.disarm();
        expect(memory().numTensors, 'tensors left').to.equal(before);
        if (!armed.hasFired()) break;
        expect((outcome as Error).message).to.match(lost);
        await registerAnew();
        expect((await run()).map((x) => Array.from(x))).to.deep.equal(expected.map((x) => Array.from(x)));
      }
      expect(losses).to.be.at.least(all ? 3 : 1);
    });

    it('fails reads of a backend that is removed meanwhile or was before, with its tensors', async () => {
      const x = make();
      const [first, second] = [flashAttention(x, x, x), flashAttention(x, x, x)];
      const removed = /webgpu backend was removed, and its tensors with it\. Register it anew\.$/;
      const pending = failure(first.data());
      const old = gpu();
      removeBackend('webgpu');
      expect(await pending).to.match(removed);
      expect(await failure(second.data())).to.match(removed);
      expect(() => second.dataSync()).to.throw(removed);
      old.device.destroy();
      await registerAnew();
      // The input is of the backend before, which has nothing any more.
      expect(() => flashAttention(x, x, x)).to.throw(removed);
      [x, first, second].forEach((t) => t.dispose());
      await attends();
    });

    it('leaves another backend alone', async () => {
      const cpu = async (body: (x: Tensor4D) => Promise<void>) => {
        await setBackend('cpu');
        const x = make();
        await body(x);
        x.dispose();
      };
      const one = gpu();
      const x = make();
      const output = flashAttention(x, x, x);
      await cpu(async (y) => {
        const expected = await flashAttention(y, y, y).data();
        (await output.data()).forEach((value, i) => expect(value).to.be.closeTo(expected[i], 1e-5));
      });
      await setBackend('webgpu');
      const second = flashAttention(x, x, x);
      one.device.destroy();
      await cpu(async (y) => {
        expect(await failure(second.data())).to.match(lost);
        await flashAttention(y, y, y).data();
      });
      await registerAnew();
      await attends();
    });
  });
}
