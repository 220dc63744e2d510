import type {Tensor4D} from '@tensorflow/tfjs-core';
import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {describeBackends} from '../environment';
import {relativeL1} from '../golden_cases';
import type {Inputs} from '../reference';
import {paper, randomInputs, tensors} from '../reference';

interface Plan {
  keyIndices: ArrayLike<number>;
  blockMask: ArrayLike<number>;
}

async function planOf(query: Tensor4D, key: Tensor4D, options: PBSAttentionOptions): Promise<Plan> {
  const {keyIndices, blockMask} = pbsAttentionPlan(query, key, options);
  return {keyIndices: await keyIndices.data(), blockMask: await blockMask.data()};
}

/** Attention by its definition, over the keys that a plan lets each row see. Grouped heads, one batch. */
function maskedAttention(inputs: Inputs, plan: Plan, blockSize: number, causal: boolean): Float32Array {
  const {query, key, value, queryShape, keyShape} = inputs;
  const [batch, heads, length, headDim] = queryShape;
  const blocks = Math.ceil(length / blockSize);
  const output = new Float32Array(query.length);
  for (let head = 0; head < batch * heads; ++head) {
    const keyHead = Math.floor(head / heads) * keyShape[1] + Math.floor((head % heads) / (heads / keyShape[1]));
    for (let row = 0; row < length; ++row) {
      const maskRow = (head * blocks + Math.floor(row / blockSize)) * blocks;
      const weights = new Map<number, number>();
      for (let slot = 0; slot < length; ++slot) {
        const position = plan.keyIndices[head * length + slot];
        if (plan.blockMask[maskRow + Math.floor(slot / blockSize)] && (!causal || position <= row)) {
          let score = 0;
          for (let d = 0; d < headDim; ++d) {
            score += query[(head * length + row) * headDim + d] * key[(keyHead * length + position) * headDim + d];
          }
          weights.set(position, Math.exp(score / Math.sqrt(headDim)));
        }
      }
      const sum = [...weights.values()].reduce((a, b) => a + b, 0);
      for (let d = 0; d < headDim; ++d) {
        for (const [position, weight] of weights) {
          output[(head * length + row) * headDim + d] +=
            (weight / sum) * value[(keyHead * length + position) * headDim + d];
        }
      }
    }
  }
  return output;
}

describeBackends('block selection', (backend) => {
  before(() => setBackend(backend));
  const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;
  // 13 blocks of 16, the last of 8 rows; 6 complete segments of 32 and a remainder of 8.
  const shape = {batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 16};
  const sizes = {...paper, blockSize: 16, segmentSize: 32};
  const inputs = randomInputs(shape, 11);
  const blocks = 13;
  const maskRows = shape.batch * shape.heads * blocks;

  const variants: PBSAttentionOptions[] = [
    {threshold: 0.6},
    {threshold: 0.6, exactLastBlock: false},
    {threshold: 0.6, permute: false},
    {threshold: 0.6, permute: false, exactLastBlock: false},
    {threshold: 0.6, causal: false},
    {threshold: 0},
  ];
  for (const variant of variants) {
    it(`attends to exactly the blocks of the plan: ${JSON.stringify(variant)}`, async () => {
      const options = {...sizes, ...variant};
      const [q, k, v] = tensors(inputs);
      const plan = await planOf(q, k, options);
      const kept = Array.from(plan.blockMask).reduce((a, b) => a + b, 0);
      expect(kept, 'the case selects something, and not everything').to.be.within(maskRows, maskRows * 10);
      const expected = maskedAttention(inputs, plan, sizes.blockSize, variant.causal ?? true);
      const output = pbsAttention(q, k, v, {...options, auto: false});
      expect(relativeL1(await output.data(), expected)).to.be.below(tolerance);
    });
  }

  it('sorts keys inside complete segments and leaves the remainder', async () => {
    const [q, k] = tensors(inputs);
    const {keyIndices} = await planOf(q, k, {...sizes, threshold: 0.6});
    let moved = 0;
    for (let head = 0; head < shape.batch * shape.heads; ++head) {
      for (let start = 0; start < 200; start += 32) {
        const end = Math.min(start + 32, 200);
        const segment = Array.from(keyIndices).slice(head * 200 + start, head * 200 + end);
        const inOrder = Array.from({length: end - start}, (_, i) => start + i);
        moved += segment.filter((key, i) => key !== inOrder[i]).length;
        expect([...segment].sort((a, b) => a - b)).to.deep.equal(inOrder);
        if (end - start < 32) {
          expect(segment).to.deep.equal(inOrder);
        }
      }
    }
    expect(moved).to.be.above(1000);
  });

  it('keeps the order of keys without permutation', async () => {
    const [q, k] = tensors(inputs);
    const {keyIndices} = await planOf(q, k, {...sizes, permute: false});
    expect(Array.from(keyIndices).every((key, i) => key === i % 200)).to.equal(true);
  });

  it('always keeps the own segment and the block of key 0, and nothing of later segments', async () => {
    const [q, k] = tensors(inputs);
    const {keyIndices, blockMask} = await planOf(q, k, {...sizes, threshold: 0});
    for (let row = 0; row < maskRows; ++row) {
      const head = Math.floor(row / blocks);
      const segment = Math.floor((row % blocks) / 2);
      const sink = Math.floor(
        Array.from(keyIndices)
          .slice(head * 200)
          .indexOf(0) / 16,
      );
      const expected = [...new Set([sink, 2 * segment, 2 * segment + 1])].filter((block) => block < blocks);
      const kept = Array.from({length: blocks}, (_, i) => i).filter((i) => blockMask[row * blocks + i]);
      expect(kept, `row ${row}`).to.deep.equal(expected.sort((a, b) => a - b));
    }
  });

  it('keeps more with a higher threshold', async () => {
    const [q, k] = tensors(inputs);
    let last: Plan | undefined;
    const densities: number[] = [];
    for (const threshold of [0, 0.3, 0.6, 0.9, 1]) {
      const plan = pbsAttentionPlan(q, k, {...sizes, threshold});
      densities.push(await pbsAttentionDensity(plan, sizes));
      const mask = await plan.blockMask.data();
      const isSubset = last === undefined || Array.from(last.blockMask).every((kept, i) => !kept || mask[i]);
      // At threshold 1 keys keep their own order, but then every visible block is selected.
      expect(isSubset, `threshold ${threshold}`).to.equal(true);
      last = {keyIndices: [], blockMask: mask};
    }
    expect([...densities].sort((a, b) => a - b)).to.deep.equal(densities);
    expect(densities[0]).to.be.below(0.5);
    expect(densities[4]).to.equal(1);
  });

  it('selects for the last rows by their exact attention', async () => {
    // One key that the last query alone cares for, hidden among keys whose mean is large: the mean of its block is small.
    const length = 128;
    const headDim = 8;
    const hidden = 21;
    const query = new Float32Array(length * headDim);
    const key = new Float32Array(length * headDim);
    for (let i = 0; i < length; ++i) {
      query[i * headDim] = i >= length - 16 ? 10 : 0;
      key[i * headDim + 1] = 1;
      key[i * headDim] = i === hidden ? 8 : i >= 32 && i < 96 ? 0.6 : i < 16 ? 0.6 : -1;
    }
    const shapes = {queryShape: [1, 1, length, headDim], keyShape: [1, 1, length, headDim]} as const;
    const [q, k] = tensors({
      query,
      key,
      value: key,
      queryShape: [...shapes.queryShape],
      keyShape: [...shapes.keyShape],
      valueShape: [...shapes.keyShape],
    });
    const options = {...paper, blockSize: 16, segmentSize: 32, threshold: 0.5, permute: false};
    const lastRow = async (exactLastBlock: boolean) =>
      Array.from((await planOf(q, k, {...options, exactLastBlock})).blockMask).slice(7 * 8);
    expect((await lastRow(true))[1], 'block of the hidden key, by exact attention').to.equal(1);
    expect((await lastRow(false))[1], 'block of the hidden key, by the pooled estimate').to.equal(0);
  });

  it('says density 1 and the identity where attention is exact', async () => {
    const [q, k] = tensors(inputs);
    const plan = pbsAttentionPlan(q, k, {blockSize: 128, segmentSize: 256});
    expect(await pbsAttentionDensity(plan, {blockSize: 128, segmentSize: 256})).to.equal(1);
    expect(Array.from(await plan.keyIndices.data()).every((key, i) => key === i % 200)).to.equal(true);
  });
});
