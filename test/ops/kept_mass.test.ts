import type {NamedAttrMap, NamedTensorMap, Tensor} from '@tensorflow/tfjs-core';
import {dispose, engine, setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionAttrs} from '../../src/attention/attention_kernels';
import {PBSAttentionPlan} from '../../src/attention/attention_kernels';
import {blockGeometry} from '../../src/attention/block_geometry';
import {blockLists} from '../../src/kernels/cpu/select/block_lists';
import * as cpuMass from '../../src/kernels/cpu/select/kept_mass';
import * as cpuPermute from '../../src/kernels/cpu/permute/permute';
import * as cpuSampled from '../../src/kernels/cpu/select/sampled_mass';
import * as cpuScore from '../../src/kernels/cpu/select/score_blocks';
import {describeAllBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import {randomInputs, tensors} from '../reference/attention';
import {cpuCall} from '../reference/cpu_call';

describeAllBackends('kept mass', (backend) => {
  before(() => setBackend(backend));
  const inputs = randomInputs({batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 16}, 61);
  const attrs: PBSAttentionAttrs = {
    blockSize: 16,
    keyBlockSize: 8,
    segmentSize: 32,
    threshold: 0.85,
    causal: true,
    scale: 0.3,
    precision: 'float32',
    permute: true,
    estimate: 'sampled',
    auto: false,
    expectedDensity: 0,
    queryOffset: 0,
  };
  const plan = async (changes: Partial<PBSAttentionAttrs>, withMass = true) => {
    const [query, key, value] = tensors(inputs);
    const outputs = engine().runKernel(
      PBSAttentionPlan,
      {query, key} as unknown as NamedTensorMap,
      {...attrs, ...changes, withMass} as NamedAttrMap,
    ) as unknown as Tensor[];
    const geometry = blockGeometry(query, key, attrs);
    const values = await Promise.all(outputs.map((x) => x.data()));
    const shapes = outputs.map(({shape}) => shape);
    dispose([query, key, value, ...outputs]);
    return {values, shapes, geometry};
  };

  const cases: Array<[estimate: 'sampled' | 'pooled', causal: boolean]> = [
    ['sampled', true],
    ['sampled', false],
    ['pooled', true],
    ['pooled', false],
  ];
  for (const [estimate, causal] of cases) {
    it(`is what selection kept of what it expected: ${estimate}, ${causal ? 'causal' : 'not causal'}`, async () => {
      const {
        values: [, blockMask, mass],
        shapes,
        geometry,
      } = await plan({estimate, causal, ...(estimate === 'pooled' && {threshold: 0.6})});
      const {batch, heads, queryBlocks} = geometry;
      expect(shapes[2]).to.deep.equal([batch, heads, queryBlocks]);
      const call = cpuCall(inputs, {geometry, scale: attrs.scale, causal});
      const {keyIndices} = cpuPermute.permute(call, {permute: attrs.permute, estimate});
      const masses =
        estimate === 'sampled'
          ? cpuSampled.sampledMass(call, keyIndices).means
          : cpuScore.scoreBlocks(call, keyIndices);
      const expected = cpuMass.keptMass(call, {estimate}, masses, blockLists(blockMask, geometry));
      expect(relativeL1(mass, expected)).to.be.below(1e-5);
      expect(Math.min(...mass), 'something is left out').to.be.within(0.3, 0.9);
    });
  }

  it('keeps the share of the threshold by the pooled estimate', async () => {
    const {values} = await plan({estimate: 'pooled', threshold: 0.6});
    expect(Math.min(...values[2])).to.be.at.least(0.6 - 1e-6);
  });

  it('is 1 where nothing competes', async () => {
    const {
      values: [, , mass],
      geometry,
    } = await plan({threshold: 0});
    expect(Array.from(mass).filter((_, i) => i % geometry.queryBlocks < 2)).to.deep.equal(new Array(16).fill(1));
  });

  it('is 1 for the plan of exact attention', async () => {
    const {values} = await plan({threshold: 1});
    expect(Array.from(values[2]).every((x) => x === 1)).to.equal(true);
  });

  it('is not computed where nobody asks', async () => {
    expect((await plan({}, false)).values).to.have.length(2);
  });
});
