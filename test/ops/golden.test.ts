import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {blockGeometry} from '../../src/attention/block_geometry';
import {pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {expectSameMasks} from '../reference/block_masks';
import {describeAllBackends} from '../setup/environment';
import type {GoldenCase} from '../golden/golden_cases';
import {goldenCases, relativeL1} from '../golden/golden_cases';

describeAllBackends("the authors' vectors", (backend) => {
  let cases: GoldenCase[];
  before(async () => {
    cases = await goldenCases();
    await setBackend(backend);
  });
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;

  for (let index = 0; index < 7; ++index) {
    it(`case ${index}: key order, selected blocks, density, output`, async () => {
      const {query, key, value, options, output, plan} = cases[index];
      const [q, k, v] = [query(), key(), value()];
      const ours = pbsAttention(q, k, v, {...options, auto: false});
      expect(relativeL1(await ours.data(), output)).to.be.below(tolerance);
      if (plan) {
        const ourPlan = pbsAttentionPlan(q, k, options);
        expect(Array.from(await ourPlan.keyIndices.data())).to.deep.equal(Array.from(plan.keyIndices));
        const geometry = blockGeometry(q, k, options);
        expectSameMasks(
          await ourPlan.blockMask.data(),
          plan.blockMask,
          await q.data<'float32'>(),
          await k.data<'float32'>(),
          geometry,
          {...options, scale: 1 / Math.sqrt(geometry.headDim), causal: true, permute: true},
        );
        expect(await pbsAttentionDensity(ourPlan, options)).to.be.closeTo(plan.density, 1e-6);
      }
    });
  }

  // In float16 where the device has it, else in float32 after all.
  for (const index of [5, 6]) {
    it(`case ${index}, captured from a model: output with precision float16`, async () => {
      const {query, key, value, options, output} = cases[index];
      const ours = pbsAttention(query(), key(), value(), {...options, auto: false, precision: 'float16'});
      expect(relativeL1(await ours.data(), output)).to.be.below(2e-3);
    });
  }

  it('knows all cases', () => expect(cases).to.have.length(7));
});
