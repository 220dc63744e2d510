import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {KeyValueCache} from '../../../runner/llama/cache';
import type {LlamaModel} from '../../../runner/llama/model';
import {GREEDY, Sampler} from '../../../runner/llama/sample';
import {all, failEach} from '../../faults/fail_each';
import {flush, onOwnDevice, webgpuFaults} from '../../faults/webgpu_faults';
import {testBackends} from '../../setup/environment';
import {loadModel, tinyConfig, tinyFiles, tinyIds, tinyTensors} from './tiny/random_checkpoint';

/** Of whole groups, so that matrices are packed, and steps recorded. */
const config = {...tinyConfig, hidden_size: 64, intermediate_size: 96, head_dim: 16, num_hidden_layers: 1};

if (testBackends().includes('webgpu')) {
  describe('failures of the device under a model [webgpu]', function () {
    this.timeout(600_000);
    onOwnDevice();
    const gpu = () => tf.backend() as WebGPUBackend;
    let model: LlamaModel;
    before(async () => {
      model = await loadModel(tinyFiles(config, tinyTensors(config)));
    });
    after(() => model.dispose());

    /** Logits of a prompt, two tokens after it, and logits after those. */
    async function run(): Promise<ArrayLike<number>[]> {
      let cache: KeyValueCache | undefined;
      const read = async (logits: tf.Tensor1D) => {
        try {
          return await logits.data();
        } finally {
          logits.dispose();
        }
      };
      try {
        const prefill = await model.prefill(tinyIds(12), {attention: 'flash'});
        cache = prefill.cache;
        const first = await read(prefill.logits);
        const sampler = new Sampler(GREEDY);
        const second = await model.decodeNext(3, cache, sampler);
        const third = await model.decodeNext(second, cache, sampler);
        return [first, [second, third], await read(model.decode(third, cache))];
      } finally {
        cache?.dispose();
      }
    }

    for (const fault of all ? ['allocation', 'pipeline', 'submit', 'map'] : ['allocation', 'map']) {
      it(`prompt and recorded steps: whichever ${fault} fails, there is an error, and the next run is right`, async () => {
        const expected = await run();
        const tried = await failEach(webgpuFaults[fault](gpu()), {
          run,
          counts() {
            flush(gpu());
            return [tf.memory().numTensors, gpu().numDataIds(), gpu().bufferManager.numBytesUsed];
          },
          check: (values) => expect(values.map((x) => Array.from(x))).to.deep.equal(expected.map((x) => Array.from(x))),
        });
        expect(tried).to.be.at.least(1);
      });
    }
  });
}
