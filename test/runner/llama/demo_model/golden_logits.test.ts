import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {generate} from '../../../../runner/llama/generate';
import type {LlamaModel} from '../../../../runner/llama/model';
import {describeBackends, fixture} from '../../../setup/environment';
import {demoFiles} from './demo_checkpoint';
import {loadModel} from '../tiny/random_checkpoint';

/** What transformers computed in float32; see docs of the fields in the checkpoint's README. */
interface Golden {
  ids: number[];
  /** `nll[i]` is that of `ids[i + 1]`, in nats. */
  nll: number[];
  lastLogits: number[];
  greedyPromptLength: number;
  greedy: number[];
}

async function readJson(path: string): Promise<unknown> {
  return JSON.parse(new TextDecoder().decode(await fixture(path)));
}

describeBackends('the demo checkpoint against transformers', (backend) => {
  let golden: Golden;
  let model: LlamaModel;
  before(async function () {
    this.timeout(60_000);
    await tf.setBackend(backend);
    golden = (await readJson('test/runner/llama/demo_model/golden_logits.json')) as Golden;
    model = await loadModel(await demoFiles());
  });
  after(() => model.dispose());

  it('gives the first tokens the same loss, prefilled and decoded', async function () {
    this.timeout(120_000);
    const {ids, nll} = golden;
    const [prefilled, total] = [16, 24];
    // Decoded tokens read keys and values in float16 there.
    const tolerance = backend === 'webgpu' ? 5e-3 : 1e-3;
    const {logits, cache} = await model.prefill(ids.slice(0, prefilled), {attention: 'flash'});
    let next: tf.Tensor1D = logits;
    for (let i = prefilled; i <= total; ++i) {
      const loss = -(await tf.logSoftmax(next).data())[ids[i]];
      expect(loss, `loss of token ${i + 1}`).to.be.closeTo(nll[i - 1], i === prefilled ? 1e-3 : tolerance);
      next.dispose();
      next = model.decode(ids[i], cache);
    }
    next.dispose();
    cache.dispose();
  });

  // Minutes of work for a backend in JavaScript, which the test above and the tiny checkpoint hold to account.
  if (backend !== 'webgpu') return;

  it('ends 1,200 tokens in the same logits', async function () {
    this.timeout(400_000);
    const {logits, cache} = await model.prefill(golden.ids, {attention: 'flash'});
    const got = await logits.data();
    const error = Math.max(...golden.lastLogits.map((expected, i) => Math.abs(got[i] - expected)));
    expect(error).to.be.lessThan(0.02);
    tf.dispose(logits);
    cache.dispose();
  });

  it('continues 1,000 tokens with the same 20', async function () {
    this.timeout(400_000);
    const prompt = golden.ids.slice(0, golden.greedyPromptLength);
    const {tokens} = await generate(model, prompt, {attention: 'flash', maxTokens: 20});
    expect(tokens).to.deep.equal(golden.greedy.slice(0, 20));
  });
});
