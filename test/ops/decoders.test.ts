import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {Safetensors} from '../../runner/llama/safetensors';
import {flashAttention, pbsAttention} from '../../src/index';
import {decoders, type Weights} from '../reference/decoders';
import {difference} from '../reference/difference';
import {describeBackends, fixture} from '../setup/environment';

/** By transformers: golden/decoders.py. */
interface Expected {
  ids: number[];
  positions: number[];
  bloomSlopes: number[];
  /** Logits `[vocabulary]` after each of the positions. */
  models: Record<string, {logits: number[][]}>;
}

describeBackends('whole models with forms of attention against transformers', (backend) => {
  let expected: Expected;
  const weights = new Map<string, tf.Tensor>();
  before(async () => {
    await tf.setBackend(backend);
    expected = JSON.parse(new TextDecoder().decode(await fixture('test/golden/decoders.json'))) as Expected;
    const name = 'decoders.safetensors';
    const file = await Safetensors.open(new File([await fixture(`test/golden/${name}`)], name));
    for (const tensor of file.names()) {
      weights.set(tensor, tf.tensor(await file.read(tensor), [...file.shape(tensor)]));
    }
  });
  after(() => tf.dispose([...weights.values()]));

  for (const [model, form] of [
    ['mistral', 'a window'],
    ['gpt_oss', 'sinks, and a window in every other layer'],
    ['gemma2', 'a soft cap, and a window in every other layer'],
    ['bloom', 'slopes'],
  ]) {
    it(`${model}: ${form}`, async () => {
      const {ids, positions, bloomSlopes, models} = expected;
      const ofModel = ((name: string) => weights.get(`${model}.${name}`)) as Weights;
      const run = decoders(bloomSlopes)[model];
      for (const [name, attention] of [
        ['flashAttention', flashAttention],
        [
          'pbsAttention',
          (...[q, k, v, options]: Parameters<typeof flashAttention>) =>
            pbsAttention(q, k, v, {...options, threshold: 1}),
        ],
      ] as const) {
        const logits = tf.tidy(() => tf.gather(run(ids, ofModel, attention), positions));
        const got = await logits.data();
        logits.dispose();
        const wanted = models[model].logits.flat();
        expect(difference(got, wanted), name).to.be.below(backend === 'cpu' ? 1e-5 : 1e-4);
      }
    });
  }
});
