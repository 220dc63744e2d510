import type {Tensor} from '@tensorflow/tfjs-core';
import {randomNormal, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {CausalSelfAttention as After} from '../../examples/gpt/attention_after';
import {CausalSelfAttention as Before} from '../../examples/gpt/attention_before';
import {describeBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';

describeBackends('examples: attention of a GPT', (backend) => {
  before(() => setBackend(backend));

  it('gives before what it gives after, with threshold 1; with its default on few tokens too', async () => {
    const x = randomNormal([2, 40, 32], 0, 2, 'float32', 1);
    const before = new Before({name: `before_${backend}`, heads: 4});
    const wanted = await (before.apply(x) as Tensor).data();
    for (const threshold of [1, undefined]) {
      const after = new After({name: `after_${backend}_${threshold}`, heads: 4, threshold});
      after.build(x.shape);
      after.setWeights(before.getWeights());
      const ours = after.apply(x) as Tensor;
      expect(ours.shape).to.deep.equal(x.shape);
      expect(relativeL1(await ours.data(), wanted)).to.be.below(1e-4);
    }
  });
});
