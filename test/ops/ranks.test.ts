import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, grads, memory, reshape, setBackend, sum, tensor3d, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {
  attentionWithLogSumExp,
  extendPBSAttentionPlan,
  flashAttention,
  mergeAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
} from '../../src/index';
import {randomInputs, tensors} from '../reference/attention';
import {describeBackends} from '../setup/environment';

const withoutBatch = (x: Tensor4D) => reshape(x, x.shape.slice(1) as [number, number, number]);
const cut = {blockSize: 8, segmentSize: 16, auto: false, threshold: 0.5};

describeBackends('tensors without a batch', (backend) => {
  before(() => setBackend(backend));
  const inputs = randomInputs({heads: 2, keyValueHeads: 1, length: 40, headDim: 8, valueDim: 12}, 5);

  it('are a batch of one, in every op, and come back without it', async () => {
    const batched = tensors(inputs);
    const [q, k, v] = batched.map(withoutBatch);
    const before = memory().numTensors;
    const mask = tensor3d(
      Array.from({length: 40 * 40}, (_, i) => (i % 40 === 0 ? 1 : i % 3)),
      [1, 40, 40],
      'bool',
    );
    const mask4 = reshape(mask, [1, 1, 40, 40]);
    const [parts, parts4] = [
      attentionWithLogSumExp(q, k, v, {mask}),
      attentionWithLogSumExp(...batched, {mask: mask4 as Tensor4D}),
    ];
    const plan = pbsAttentionPlan(q, k, cut);
    const plan4 = pbsAttentionPlan(batched[0], batched[1], cut);
    expect(Array.from(await plan.blockMask.data())).to.deep.equal(Array.from(await plan4.blockMask.data()));
    expect(await pbsAttentionDensity(plan)).to.equal(await pbsAttentionDensity(plan4));
    const longer = extendPBSAttentionPlan(plan, q, k);
    expect(longer.keyIndices.shape).to.deep.equal([1, 2, 40]);
    const merged = mergeAttention([parts]);
    const pairs = [
      [flashAttention(q, k, v), flashAttention(...batched)],
      [q.flashAttention(k, v, {keyLengths: [33]}), flashAttention(...batched, {keyLengths: [33]})],
      [pbsAttention(q, k, v, cut), pbsAttention(...batched, cut)],
      [pbsAttention(q, k, v, {plan}), pbsAttention(...batched, cut)],
      [parts.output, parts4.output],
      [parts.logSumExp, parts4.logSumExp],
      [merged.output, parts4.output],
    ];
    for (const [ours, same] of pairs) {
      expect(ours.shape).to.deep.equal(same.shape.slice(1));
      const [found, expected] = [await ours.data(), await same.data()];
      expected.forEach((x, i) => expect(found[i]).to.be.closeTo(x, 1e-6));
    }
    dispose([pairs, merged]);
    dispose([mask, mask4, plan.keyIndices, plan.blockMask, plan4.keyIndices, plan4.blockMask]);
    dispose([longer.keyIndices, longer.blockMask]);
    expect(memory().numTensors).to.equal(before);
    dispose([q, k, v, ...batched]);
  });

  it('have gradients of their rank', async () => {
    const batched = tensors(inputs);
    const entries = batched.map(withoutBatch);
    const ofEntries = grads((q, k, v) => sum(pbsAttention(q, k, v, cut)))(entries);
    const ofBatch = grads((q, k, v) => sum(pbsAttention(q, k, v, cut)))(batched);
    for (const [i, x] of ofEntries.entries()) {
      expect(x.shape).to.deep.equal(entries[i].shape);
      const [found, expected] = [await x.data(), await ofBatch[i].data()];
      expected.forEach((y, j) => expect(found[j]).to.be.closeTo(y, 1e-5));
    }
    dispose([...batched, ...entries, ...ofEntries, ...ofBatch]);
  });

  it('may be nested arrays, as those of tfjs, and a mask int32', async () => {
    const query = [[[1, 2], [3, 4]]]; // prettier-ignore
    const key = [[new Float32Array([1, 0]), new Float32Array([0, 1])]] as unknown as number[][][];
    const mask = tensor4d([1, 0, 1, 1], [1, 1, 2, 2], 'int32');
    const before = memory().numTensors;
    const ours = flashAttention([query], [key], [query], {causal: false, mask});
    const made = [tensor4d([query]), tensor4d([1, 0, 0, 1], [1, 1, 2, 2])];
    const same = flashAttention(made[0], made[1], made[0]);
    expect(Array.from(await ours.data())).to.deep.equal(Array.from(await same.data()));
    dispose([ours, same, ...made]);
    expect(memory().numTensors).to.equal(before);
    mask.dispose();
  });
});
