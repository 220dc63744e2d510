import type {Tensor4D} from '@tensorflow/tfjs-core';
import {setBackend} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions, PBSAttentionPlanSizes} from '../../src/index';
import {pbsAttention, pbsAttentionDensity, pbsAttentionPlan} from '../../src/index';
import {describeBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {Inputs} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';

interface Plan {
  keyIndices: ArrayLike<number>;
  blockMask: ArrayLike<number>;
  sizes: PBSAttentionPlanSizes;
}

async function planOf(query: Tensor4D, key: Tensor4D, options: PBSAttentionOptions): Promise<Plan> {
  const {keyIndices, blockMask, sizes} = pbsAttentionPlan(query, key, options);
  return {keyIndices: await keyIndices.data(), blockMask: await blockMask.data(), sizes: sizes!};
}

/** Attention by its definition, over the keys that a plan lets each row see. Grouped heads, one batch. */
function maskedAttention(inputs: Inputs, plan: Plan): Float32Array {
  const {query, key, value, queryShape, keyShape} = inputs;
  const [batch, heads, length, headDim] = queryShape;
  const {blockSize, keyBlockSize, causal} = plan.sizes;
  const [queryBlocks, keyBlocks] = [blockSize, keyBlockSize].map((size) => Math.ceil(length / size));
  const output = new Float32Array(query.length);
  for (let head = 0; head < batch * heads; ++head) {
    const keyHead = Math.floor(head / heads) * keyShape[1] + Math.floor((head % heads) / (heads / keyShape[1]));
    for (let row = 0; row < length; ++row) {
      const maskRow = (head * queryBlocks + Math.floor(row / blockSize)) * keyBlocks;
      const weights = new Map<number, number>();
      for (let slot = 0; slot < length; ++slot) {
        const position = plan.keyIndices[head * length + slot];
        if (plan.blockMask[maskRow + Math.floor(slot / keyBlockSize)] && (!causal || position <= row)) {
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
  // 13 blocks of 16, the last of 8 rows; 6 complete segments of 32 and 8 keys more.
  const shape = {batch: 2, heads: 4, keyValueHeads: 2, length: 200, headDim: 8};
  const sizes = {blockSize: 16, segmentSize: 32};
  const inputs = randomInputs(shape, 11);
  const blocks = 13;
  const maskRows = shape.batch * shape.heads * blocks;

  const variants: PBSAttentionOptions[] = [
    {threshold: 0.7},
    {threshold: 0.7, permute: false},
    {threshold: 0.7, causal: false},
    {threshold: 0.7, keyBlockSize: 8},
    // Segments end inside a block of queries.
    {threshold: 0.73, keyBlockSize: 8, segmentSize: 24, causal: false},
    {threshold: 0.7, keyBlockSize: 8, segmentSize: 24},
    {threshold: 0.6, blockSize: 8, keyBlockSize: 32},
    {threshold: 0},
    {threshold: 0.6, estimate: 'pooled'},
    {threshold: 0.6, estimate: 'pooled', permute: false},
    {threshold: 0.6, estimate: 'pooled', causal: false},
    {threshold: 0.6, estimate: 'pooled', keyBlockSize: 8, segmentSize: 24},
  ];
  for (const variant of variants) {
    it(`attends to exactly the blocks of the plan: ${JSON.stringify(variant)}`, async () => {
      const options = {...sizes, ...variant};
      const [q, k, v] = tensors(inputs);
      const plan = await planOf(q, k, options);
      const density = await pbsAttentionDensity(pbsAttentionPlan(q, k, options));
      expect(density, 'the case selects something, and not everything').to.be.within(0.1, 0.9);
      const expected = maskedAttention(inputs, plan);
      const output = pbsAttention(q, k, v, {...options, auto: false});
      expect(relativeL1(await output.data(), expected)).to.be.below(tolerance);
    });
  }

  it('sorts keys inside complete segments and leaves the others', async () => {
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

  for (const estimate of ['sampled', 'pooled'] as const) {
    it(`keeps more with a higher threshold, ${estimate}`, async () => {
      const [q, k] = tensors(inputs);
      let last: Float32Array | Int32Array | Uint8Array | undefined;
      const densities: number[] = [];
      for (const threshold of [0, 0.3, 0.6, 0.8, 0.9, 1]) {
        const plan = pbsAttentionPlan(q, k, {...sizes, estimate, threshold});
        densities.push(await pbsAttentionDensity(plan, sizes));
        const mask = await plan.blockMask.data();
        const isSubset = last === undefined || Array.from(last).every((kept, i) => !kept || mask[i]);
        // At threshold 1 keys keep their own order, but then every visible block is selected.
        expect(isSubset, `threshold ${threshold}`).to.equal(true);
        last = mask;
      }
      expect([...densities].sort((a, b) => a - b)).to.deep.equal(densities);
      expect(densities[0]).to.be.below(0.5);
      expect(densities[2], 'the estimate decides').to.be.below(densities[4]);
      expect(densities[5]).to.equal(1);
    });
  }

  it('says density 1 and the identity where attention is exact', async () => {
    const [q, k] = tensors(inputs);
    const plan = pbsAttentionPlan(q, k, {blockSize: 128, segmentSize: 256});
    expect(await pbsAttentionDensity(plan, {blockSize: 128, segmentSize: 256})).to.equal(1);
    expect(Array.from(await plan.keyIndices.data()).every((key, i) => key === i % 200)).to.equal(true);
  });
});
