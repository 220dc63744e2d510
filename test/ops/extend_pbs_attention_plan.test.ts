import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, memory, setBackend, slice} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {
  extendPBSAttentionPlan,
  flashAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
} from '../../src/index';
import {describeAllBackends} from '../setup/environment';
import {relativeL1} from '../golden/golden_cases';
import type {PlanValues} from '../reference/plan_values';
import {keptBlocks, planMask, valuesOf} from '../reference/plan_values';
import {composedAttention, randomInputs, tensors} from '../reference/attention';

const cut = {blockSize: 8, keyBlockSize: 4, segmentSize: 16, auto: false};
const options = {...cut, threshold: 0.7};
const heads = 4;

/** Rows `[start, end)`. */
const rows = (x: Tensor4D, start: number, end: number) =>
  slice(x, [0, 0, start, 0], [-1, -1, end - start, -1]) as Tensor4D;

/** The definition: what each row of blocks of the extended plan keeps, from what the last row of the old one kept. */
function extendedRows(old: PlanValues, count: number, causal: boolean): number[][] {
  const {blockSize, keyBlockSize, segmentSize} = cut;
  const [batch, , , known] = old.shape;
  const total = known + count;
  const kept: number[][] = [];
  for (let head = 0; head < batch * heads; ++head) {
    const carried = keptBlocks(old, (head + 1) * old.queryBlocks - 1);
    for (let first = known; first < total; first += blockSize) {
      const last = Math.min(first + blockSize, total) - 1;
      const isNew = (block: number) => (block + 1) * keyBlockSize > known;
      const isOwn = (block: number) => causal && block * keyBlockSize >= Math.floor(first / segmentSize) * segmentSize;
      const end = causal ? (Math.floor(last / segmentSize) + 1) * segmentSize : total;
      kept.push(
        Array.from({length: Math.ceil(total / keyBlockSize)}, (_, block) => block).filter(
          (block) => carried.includes(block) || (block * keyBlockSize < end && (isNew(block) || isOwn(block))),
        ),
      );
    }
  }
  return kept;
}

describeAllBackends('extended plans', (backend) => {
  before(() => setBackend(backend));

  for (const causal of [true, false]) {
    it(`carry on what the last rows kept, ${causal ? 'causal' : 'not causal'}`, async () => {
      const [prompt, total] = [75, 100];
      const [q, k] = tensors(randomInputs({heads, keyValueHeads: 2, length: total, headDim: 8}, 72));
      let plan = pbsAttentionPlan(rows(q, 0, prompt), rows(k, 0, prompt), {...options, causal});
      let old = await valuesOf(plan);
      expect(keptBlocks(old, old.queryBlocks - 1).length, 'blocks left out').to.be.below(old.keyBlocks);
      const order = (x: PlanValues, head: number) =>
        Array.from({length: x.shape[3]}, (_, i) => x.keyIndices[head * x.shape[3] + i]);
      for (const count of [1, 1, 3, 16, 4]) {
        const known = old.shape[3];
        const query = rows(q, known, known + count);
        const next = extendPBSAttentionPlan(plan, query, rows(k, 0, known + count), {...options, causal});
        const values = await valuesOf(next);
        for (let head = 0; head < heads; ++head) {
          const added = Array.from({length: count}, (_, i) => known + i);
          expect(order(values, head)).to.deep.equal([...order(old, head), ...added]);
        }
        const kept = Array.from({length: heads * values.queryBlocks}, (_, row) => keptBlocks(values, row));
        expect(kept, `rows from ${known}`).to.deep.equal(extendedRows(old, count, causal));
        const density = await pbsAttentionDensity(next, {...options, causal, queryOffset: known});
        expect(density, 'density').to.be.within(0.2, 0.95);
        dispose([plan.keyIndices, plan.blockMask]);
        [plan, old] = [next, values];
      }
    });
  }

  it('keep their order and rows where no key is new', async () => {
    const [q, k] = tensors(randomInputs({heads: 2, length: 75, headDim: 8}, 73));
    const plan = pbsAttentionPlan(q, k, {...options, causal: false});
    const next = extendPBSAttentionPlan(plan, rows(q, 0, 9), k, {...options, causal: false});
    const [before, after] = [await valuesOf(plan), await valuesOf(next)];
    expect(Array.from(after.keyIndices)).to.deep.equal(Array.from(before.keyIndices));
    for (let head = 0; head < 2; ++head) {
      for (const block of [0, 1]) {
        expect(keptBlocks(after, 2 * head + block)).to.deep.equal(keptBlocks(before, 10 * head + 9));
      }
    }
  });

  it('leak nothing', () => {
    const [q, k] = tensors(randomInputs({batch: 2, length: 70, headDim: 8}, 74));
    const [prompt, keys, token] = [rows(q, 0, 60), rows(k, 0, 60), rows(q, 60, 61)];
    const before = memory().numTensors;
    const plan = pbsAttentionPlan(prompt, keys, options);
    const next = extendPBSAttentionPlan(plan, token, k, options);
    expect(memory().numTensors).to.equal(before + 4);
    dispose([plan.keyIndices, plan.blockMask, next.keyIndices, next.blockMask]);
    expect(memory().numTensors).to.equal(before);
  });

  it('see what a cache with room held already when the plan was made', async () => {
    const [q, k, v] = tensors(randomInputs({heads, keyValueHeads: 2, length: 96, headDim: 8}, 77));
    const exact = {...cut, threshold: 1};
    let plan = pbsAttentionPlan(rows(q, 0, 24), k, {...exact, queryOffset: 0});
    for (const [start, end] of [
      [24, 64],
      [64, 65],
      [80, 96],
    ]) {
      const query = rows(q, start, end);
      plan = extendPBSAttentionPlan(plan, query, k, {queryOffset: start});
      expect(await pbsAttentionDensity(plan), `density of rows from ${start}`).to.equal(1);
      const attended = await pbsAttention(query, k, v, {plan}).data();
      const expected = await flashAttention(query, k, v, {queryOffset: start}).data();
      expect(relativeL1(attended, expected), `rows from ${start}`).to.be.below(1e-5);
    }
  });

  it('are what decoding attends by', async () => {
    const tolerance = backend === 'cpu' ? 1e-5 : 1e-4;
    const [q, k, v] = tensors(randomInputs({heads, keyValueHeads: 2, length: 81, headDim: 8}, 76));
    let plan = pbsAttentionPlan(rows(q, 0, 75), rows(k, 0, 75), options);
    let length = 75;
    for (const count of [1, 1, 4]) {
      const end = length + count;
      const [query, key, value] = [rows(q, length, end), rows(k, 0, end), rows(v, 0, end)];
      plan = extendPBSAttentionPlan(plan, query, key, options);
      const attended = await pbsAttention(query, key, value, {...options, plan}).data();
      const mask = planMask(await valuesOf(plan));
      const expected = await composedAttention(query, key, value, {mask}).data();
      expect(relativeL1(attended, expected), `rows from ${length}`).to.be.below(tolerance);
      length = end;
    }
  });
});
