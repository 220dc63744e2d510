import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {blockGeometry} from '../../src/kernels/block_geometry';
import {permute} from '../../src/kernels/cpu/permute';
import {scoreBlocks} from '../../src/kernels/cpu/score_blocks';
import {pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {describeBackends} from '../environment';
import type {GoldenCase} from '../golden_cases';
import {goldenCases, relativeL1} from '../golden_cases';

describeBackends("the authors' vectors", (backend) => {
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
      const ours = pbsAttention(q, k, v, options);
      expect(relativeL1(await ours.data(), output)).to.be.below(tolerance);
      if (plan) {
        const ourPlan = pbsAttentionPlan(q, k, options);
        expect(Array.from(await ourPlan.keyIndices.data())).to.deep.equal(Array.from(plan.keyIndices));
        await expectMask(await ourPlan.blockMask.data(), cases[index]);
        expect(await pbsAttentionDensity(ourPlan, options)).to.be.closeTo(plan.density, 1e-6);
      }
    });
  }

  it('knows all cases', () => expect(cases).to.have.length(7));
});

/** Masks are equal, but for rows in which a sum of scores comes so close to the threshold that rounding decides. */
async function expectMask(mask: ArrayLike<number>, {query, key, options, plan}: GoldenCase): Promise<void> {
  const [q, k] = [query(), key()];
  const [queryValues, keyValues] = [await q.data<'float32'>(), await k.data<'float32'>()];
  const geometry = blockGeometry(q, k, options);
  const scale = 1 / Math.sqrt(geometry.headDim);
  const order = permute(queryValues, keyValues, geometry, scale, true);
  const scores = scoreBlocks(queryValues, keyValues, order, geometry, scale, true, false);
  const {blocks} = geometry;
  for (let row = 0; row < mask.length / blocks; ++row) {
    const byScore = scores.slice(row * blocks, (row + 1) * blocks).sort((a, b) => b - a);
    let sum = 0;
    const isClose = byScore.some((score) => Math.abs((sum += score) - options.threshold) < 1e-4);
    if (!isClose) {
      const rowOf = (x: ArrayLike<number>) => Array.from({length: blocks}, (_, i) => x[row * blocks + i]);
      expect(rowOf(mask), `row ${row}`).to.deep.equal(rowOf(plan!.blockMask));
    }
  }
}
