import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import type {LlamaModel, PrefillRequest} from '../../../runner/llama/model';
import {GREEDY, Sampler} from '../../../runner/llama/sample';
import {pbsAttention} from '../../../src/index';
import {onOwnDevice} from '../../faults/webgpu_faults';
import {testBackends} from '../../setup/environment';
import {loadModel, tinyConfig, tinyFiles, tinyIds, tinyTensors} from './tiny/random_checkpoint';

/** Of whole groups, so that matrices are packed, and steps recorded. */
const config = {...tinyConfig, hidden_size: 64, intermediate_size: 96, head_dim: 16, num_hidden_layers: 1};
const sparse = {threshold: 0.5, blockSize: 32, keyBlockSize: 32, segmentSize: 64, auto: false};
const requests: Record<string, Pick<PrefillRequest, 'attention' | 'attend'>> = {
  exact: {attention: 'flash'},
  sparse: {attend: (_layer, query, key, value) => pbsAttention(query, key, value, sparse)},
};

if (testBackends().includes('webgpu')) {
  describe('shaders of a model compiled ahead [webgpu]', () => {
    // Its pipelines are no one else's.
    onOwnDevice();
    const gpu = () => tf.backend() as WebGPUBackend;
    let model: LlamaModel;
    beforeEach(async () => {
      Object.assign(gpu(), {pipelineCache: {}});
      model = await loadModel(tinyFiles(config, tinyTensors(config)));
    });
    afterEach(() => model.dispose());

    /** Pipelines that are made while it runs, and the tokens after a prompt. */
    async function pipelinesOf(request: Pick<PrefillRequest, 'attention' | 'attend'>): Promise<number> {
      const {device} = gpu();
      const create = device.createComputePipeline.bind(device);
      let made = 0;
      device.createComputePipeline = (descriptor) => {
        ++made;
        return create(descriptor);
      };
      try {
        const {logits, cache} = await model.prefill(tinyIds(160), request);
        await model.decodeNext(3, cache, new Sampler(GREEDY));
        (await model.prefill(tinyIds(5), {...request, attend: undefined, cache})).logits.dispose();
        logits.dispose();
        cache.dispose();
      } finally {
        device.createComputePipeline = create;
      }
      return made;
    }

    for (const [name, request] of Object.entries(requests)) {
      it(`${name}: reading, writing and the next question find theirs, and nothing stays`, async () => {
        const before = tf.memory().numTensors;
        await model.compileAhead(160, request);
        expect(tf.memory().numTensors).to.equal(before);
        expect(await pipelinesOf(request)).to.equal(0);
      });
    }

    it('are made by the first prompt where they are not', async () => {
      expect(await pipelinesOf(requests.exact)).to.be.above(5);
    });
  });
}
