import type {Tensor4D} from '@tensorflow/tfjs-core';
import {setBackend, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {describeBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import {randomInputs, tensors} from '../reference';

describeBackends('probe rows and the remainder', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;
  // 10 blocks of 16 in 5 segments.
  const shape = {batch: 2, heads: 4, keyValueHeads: 2, length: 160, headDim: 16};
  const sizes = {blockSize: 16, segmentSize: 32, auto: false};
  const inputs = randomInputs(shape, 91);
  const [batch, heads, keyHeads, length, headDim] = [2, 4, 2, 160, 16];

  const exactOf = async (q: Tensor4D, k: Tensor4D, v: Tensor4D, causal = true) =>
    flashAttention(q, k, v, {causal}).data();
  const errorOf = async (q: Tensor4D, k: Tensor4D, v: Tensor4D, options: PBSAttentionOptions) =>
    relativeL1(
      await pbsAttention(q, k, v, {...sizes, ...options}).data(),
      await exactOf(q, k, v, options.causal ?? true),
    );

  for (const causal of [true, false]) {
    it(`loses nothing of skipped blocks whose keys and values are alike, causal ${causal}`, async () => {
      // Every row of a block is its first: a summary is the whole block then.
      const alike = (x: Float32Array) =>
        x.map((_, i) => {
          const row = Math.floor(i / headDim);
          return x[(row - ((row % length) % sizes.blockSize)) * headDim + (i % headDim)];
        });
      const [q, k, v] = tensors({...inputs, key: alike(inputs.key), value: alike(inputs.value)});
      const options = {threshold: 0.2, permute: false, causal};
      const blocks = await pbsAttentionPlan(q, k, {...sizes, ...options}).blockMask.data();
      expect(Array.from(blocks).reduce((a, b) => a + b, 0) / blocks.length, 'blocks kept').to.be.below(0.5);
      expect(await errorOf(q, k, v, options)).to.be.below(tolerance);
      expect(await errorOf(q, k, v, {...options, remainder: false})).to.be.above(0.1);
    });
  }

  it('is nearer to exact attention with the remainder', async () => {
    const [q, k, v] = tensors(inputs);
    for (const threshold of [0.3, 0.7]) {
      const without = await errorOf(q, k, v, {threshold, remainder: false});
      expect(await errorOf(q, k, v, {threshold}), `threshold ${threshold}`).to.be.below(0.8 * without);
    }
  });

  it('finds the one key that a single row of a block asks for', async () => {
    // Row 100 of every head asks for key 40, in its own direction, far from the mean of its block.
    const [row, wanted] = [100, 40];
    const [query, key] = [inputs.query.slice(), inputs.key.slice()];
    const direction = headDim - 1;
    for (let head = 0; head < batch * heads; ++head) query[(head * length + row) * headDim + direction] = 7;
    for (let head = 0; head < batch * keyHeads; ++head) key[(head * length + wanted) * headDim + direction] = 7;
    const [q, k] = [query, key].map((x, i) => tensor4d(x, i === 0 ? inputs.queryShape : inputs.keyShape));
    const keptBy = async (probeRows: number) => {
      const plan = pbsAttentionPlan(q, k, {...sizes, threshold: 0.5, probeRows, exactLastBlock: false});
      const [keyIndices, blockMask] = [await plan.keyIndices.data(), await plan.blockMask.data()];
      return Array.from({length: batch * heads}, (_, head) => {
        const place = Array.from(keyIndices.slice(head * length, (head + 1) * length)).indexOf(wanted);
        const maskRow = (head * 10 + Math.floor(row / 16)) * 10;
        return blockMask[maskRow + Math.floor(place / 16)];
      }).filter(Boolean).length;
    };
    expect(await keptBy(2)).to.equal(batch * heads);
    expect(await keptBy(0)).to.be.below(batch * heads);
  });

  it('takes more probe rows than a block has', async () => {
    const [q, k, v] = tensors(randomInputs({heads: 2, length: 45, headDim: 8}, 92));
    const few = {blockSize: 4, segmentSize: 8, threshold: 0.5, auto: false};
    const all = await pbsAttentionPlan(q, k, {...few, probeRows: 4}).blockMask.data();
    const more = await pbsAttentionPlan(q, k, {...few, probeRows: 9}).blockMask.data();
    expect(Array.from(more)).to.deep.equal(Array.from(all));
    expect(await errorOf(q, k, v, {...few, probeRows: 9})).to.be.below(1);
  });

  it('adds the remainder to a given plan on request alone', async () => {
    const [q, k, v] = tensors(inputs);
    const options = {...sizes, threshold: 0.4};
    const plan = pbsAttentionPlan(q, k, options);
    const [own, without, given, asked] = await Promise.all(
      [options, {...options, remainder: false}, {...options, plan}, {...options, plan, remainder: true}].map((each) =>
        pbsAttention(q, k, v, each).data(),
      ),
    );
    expect(Array.from(given)).to.deep.equal(Array.from(without));
    expect(Array.from(asked)).to.deep.equal(Array.from(own));
    expect(Array.from(own)).not.to.deep.equal(Array.from(without));
  });
});
