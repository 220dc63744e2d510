import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {LlamaModel} from '../../../../runner/llama/model';
import {testBackends} from '../../../setup/environment';
import {float32Tensor, loadModel, tinyConfig, tinyFiles, tinyIds, tinyTensors} from '../tiny/random_checkpoint';

/** Of whole groups, so that matrices are packed, and steps recorded. */
const llama = {...tinyConfig, hidden_size: 64, intermediate_size: 96, head_dim: 16};
const qwen3 = {...llama, architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', attention_bias: false};

function headNorms(): ReturnType<typeof tinyTensors> {
  const names = [0, 1].flatMap((layer) =>
    ['q', 'k'].map((part) => `model.layers.${layer}.self_attn.${part}_norm.weight`),
  );
  return Object.fromEntries(
    names.map((name, i) => [
      name,
      float32Tensor(
        [16],
        Float32Array.from({length: 16}, (_, j) => 0.6 + ((7 * i + j) % 5) / 5),
      ),
    ]),
  );
}

if (testBackends().includes('webgpu')) {
  for (const [what, config, norms] of [
    ['Llama', llama, {}],
    ['Qwen3, with norms of heads', qwen3, headNorms()],
  ] as const) {
    describe(`recorded steps: ${what} [webgpu]`, () => {
      let model: LlamaModel;
      let tensors: number;
      before(async () => {
        await tf.setBackend('webgpu');
        tensors = tf.memory().numTensors;
        model = await loadModel(tinyFiles(config, {...tinyTensors(config), ...norms}));
      });
      after(() => {
        model.dispose();
        expect(tf.memory().numTensors, 'tensors left behind').to.equal(tensors);
      });

      const ids = tinyIds(42);
      const logitsOf = async (logits: tf.Tensor1D) => {
        const values = await logits.data();
        logits.dispose();
        return values;
      };
      const errorOf = (got: ArrayLike<number>, expected: ArrayLike<number>) =>
        Math.hypot(...Array.from(expected, (x, i) => got[i] - x)) / Math.hypot(...Array.from(expected));

      it('read the rest of a prompt, the last step not full, and go on', async () => {
        const whole = await model.prefill(ids);
        const expected = await logitsOf(whole.logits);
        const {logits, cache} = await model.prefill(ids.slice(0, 4));
        logits.dispose();
        // 32 and 5 tokens, and one by itself.
        expect(model.readsInSteps(37, cache.length)).to.equal(true);
        const rest = await model.prefill(ids.slice(4, 41), {cache});
        expect(cache.length).to.equal(41);
        rest.logits.dispose();
        const got = await logitsOf(model.decode(ids[41], cache));
        // Keys and values are float16 in the cache.
        expect(errorOf(got, expected)).to.be.below(2e-3);
        // The whole prompt's cache, which the steps are bound to anew, and again the first one.
        const next = [await logitsOf(model.decode(9, whole.cache)), await logitsOf(model.decode(9, cache))];
        expect(errorOf(next[1], next[0])).to.be.below(2e-3);
        cache.dispose();
        whole.cache.dispose();
      });

      it('tell each layer when it is done, and leave nothing where a token is refused', async () => {
        const {logits, cache} = await model.prefill(ids.slice(0, 4));
        logits.dispose();
        const layers: number[] = [];
        const rest = await model.prefill(ids.slice(4, 9), {cache, onLayer: (layer) => void layers.push(layer)});
        expect(layers).to.deep.equal([0, 1]);
        rest.logits.dispose();
        const failure = await model.prefill([3, 61], {cache}).then(String, (error: Error) => error.message);
        expect(failure).to.match(/token id is 61; accepted: integers from 0 to 60/);
        expect(cache.length).to.equal(0);
      });
    });
  }
}
