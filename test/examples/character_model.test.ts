import {expect} from 'chai';
import {attentions} from '../../examples/character_model/attentions';
import {train} from '../../examples/character_model/train';
import {describeOnCPU} from '../setup/environment';

describeOnCPU('examples: a character model learns', () => {
  const text = Array.from({length: 40}, (_, i) => `It was the ${i}th time that he had seen the lighted window.\n`).join(
    '',
  );
  const training = {
    shape: {length: 64, layers: 2, heads: 2, headDim: 8},
    batch: 1,
    steps: 12,
    learningRate: 1e-2,
    seed: 3,
  };
  // 16 blocks of 4, most of which a threshold of 0.3 drops.
  const {composed, flash, pbs} = attentions({blockSize: 4, segmentSize: 8, threshold: 0.3});

  it('with exact attention as with composed attention, with sparse attention as well', async () => {
    const expected = await train(text, composed, training);
    expect(expected[11], 'it has learned something').to.be.below(expected[0] - 0.5);
    // The same numbers but for float32 rounding, 6e-8 of each, which Adam's normalised steps pass on and 12 steps enlarge.
    (await train(text, flash, training)).forEach((loss, step) => {
      expect(loss, `step ${step}`).to.be.closeTo(expected[step], 1e-3);
    });
    // Another function, which learns as fast.
    const sparse = await train(text, pbs, training);
    expect(sparse).to.not.deep.equal(expected);
    expect(sparse[11]).to.be.closeTo(expected[11], 0.2);
  });
});
